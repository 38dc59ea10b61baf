"""The HTTP client under the SDKs: connections, the deadline of a call, bounded name lookup."""
