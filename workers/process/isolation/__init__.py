"""A suspect runs alone, in a separate process: the worker starts it and watches how it ends."""
