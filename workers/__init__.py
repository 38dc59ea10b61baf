"""Everything that runs the orchestration: Celery, provider SDKs, settings, processes, command line, Flower pages."""

if __name__ != "midwatch.workers":
    raise ImportError(f"this is Midwatch's own folder, imported as {__name__!r}: import `midwatch.workers` instead")
