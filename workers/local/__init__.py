"""Processes on this machine, for `midwatch demo`, `dev`, `bench` and the tests: a fleet and an embedded server."""
