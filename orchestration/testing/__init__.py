"""For tests: run an agent without a server, with a scripted model and a manual clock."""
