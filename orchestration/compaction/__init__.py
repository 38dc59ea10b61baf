"""What becomes of a conversation that no longer fits: elision, memory with its facts ledger, the cut of one message.

Pure functions on messages: what to archive, when, and how it is stored is decided by who calls them.
"""
