"""One step, from its claim to one of the five outcomes."""
