"""`midwatch bench storm` with real workers and a real HTTP server as the downstream."""
