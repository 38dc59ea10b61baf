"""`midwatch bench admission`: the coordinator compared with other rate limiters."""
