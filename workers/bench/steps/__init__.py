"""`midwatch bench steps` and `bench recovery`: what a step costs, beside bare Celery."""
