"""What lives in a worker process: the composition root, the tasks, the steward, the wake-up."""
