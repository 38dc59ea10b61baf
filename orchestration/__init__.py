"""The decisions: what a step does, what a reply means, whether to retry. It imports neither Celery nor a provider's SDK."""

if __name__ != "midwatch.orchestration":
    raise ImportError(
        f"this is Midwatch's own folder, imported as {__name__!r}: import `midwatch.orchestration` instead, "
        "and public names such as Agent from `midwatch`"
    )
