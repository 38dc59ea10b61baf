"""`midwatch bench backlog`: many jobs at once on few slots."""
