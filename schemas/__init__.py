"""The data types that are stored or cross a process: frozen pydantic models without I/O, clock or randomness."""

if __name__ != "midwatch.schemas":
    raise ImportError(f"this is Midwatch's own folder, imported as {__name__!r}: import `midwatch.schemas` instead")
