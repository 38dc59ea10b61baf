"""Reads a reply in any vendor's format: the JSON of its body, exact values, and why the model stopped."""
