"""The state in Redis: one script for each decision, its contract above it in `lua/`."""
