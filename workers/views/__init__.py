"""Code that Flower's pages and the commands share: a job's state, its waterfall, its conversation, and printing."""
