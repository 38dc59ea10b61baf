"""What follows calls and answers that do not pass: the ladder, examples, and the drift breaker."""
