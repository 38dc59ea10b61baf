"""The machinery: Celery, provider SDKs, environment, processes, command line, pages."""
