"""One typed function for each script of `lua/`: its arguments by name, and what its reply means."""
