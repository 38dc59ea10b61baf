"""The HTTP client of the SDKs: connections, the deadline of a call, and name lookup with a timeout."""
