"""For tests: run an agent without a server, with a scripted model and a clock that is moved by hand."""
