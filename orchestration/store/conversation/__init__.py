"""The conversation of a session in Redis: the cached log, compactions, originals."""
