"""`midwatch bench context`: replay recorded conversations in a session with a budget, and check every call."""
