"""Compaction of a session: the step for its own task, and the work, which a model turn can do itself."""
