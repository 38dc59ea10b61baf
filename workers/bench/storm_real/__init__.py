"""`midwatch bench storm` on real processes."""
