"""All code that uses Celery and kombu: the app, the transport, reading and writing messages, poison, events."""
