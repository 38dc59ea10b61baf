"""The nouns: every shape that crosses a process or is stored. Frozen pydantic models; no I/O, no clock, no chance."""

if __name__ != "midwatch.schemas":
    raise ImportError(f"this is Midwatch's own folder, imported as {__name__!r}: import `midwatch.schemas` instead")
