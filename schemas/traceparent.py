"""A producer's trace: the `traceparent` of W3C Trace Context (www.w3.org/TR/trace-context, section 3.2)."""

from __future__ import annotations

import re

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?")
"""version, trace id, id of the producer's span, flags. A later version than 00 may add more after a dash."""

MAX_LENGTH = 256


def is_traceparent(value: object) -> bool:
    """Is it a valid traceparent?"""
    if not isinstance(value, str) or len(value) > MAX_LENGTH:
        return False
    return _TRACEPARENT.fullmatch(value) is not None and (not value.startswith("00") or len(value) == 55)


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id, 32 hex digits. None if there is no valid traceparent."""
    return traceparent[3:35] if traceparent is not None and is_traceparent(traceparent) else None
