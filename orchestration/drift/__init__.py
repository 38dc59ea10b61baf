"""How the runtime reacts to invalid calls and answers: the ladder, examples, counts, and the drift breaker."""
