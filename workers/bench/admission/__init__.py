"""`midwatch bench admission`: the coordinator beside other rate limiters."""
