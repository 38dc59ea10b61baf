"""The support desk of the demo: its shop, agents, brain, tickets and checker."""
