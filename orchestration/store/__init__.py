"""The state in Redis: one script in `lua/` for each decision, one function in `script_calls/` for each script."""
