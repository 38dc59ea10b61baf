"""Local processes for `midwatch demo`, `dev`, `bench` and the tests: a fleet of workers and an embedded server."""
