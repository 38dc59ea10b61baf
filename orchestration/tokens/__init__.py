"""Estimate the size of a request: the weight of its text, and the number of its tokens."""
