"""Tools: declare them, check their calls, run them under a time limit, and limit the size of their results."""
