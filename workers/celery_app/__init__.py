"""All that touches Celery and kombu: the app, the transport, messages in and out, poison, events."""
