"""What pages and commands share: the waterfall of a job, its conversation, and printing."""
