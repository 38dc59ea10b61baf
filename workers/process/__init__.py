"""The parts of a worker process: the composition root, the tasks, the steward, the wake-up."""
