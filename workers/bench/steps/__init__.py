"""`midwatch bench steps` and `bench recovery`: the cost of a step compared with bare Celery, and recovery after kills."""
