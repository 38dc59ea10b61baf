"""Reads the wait that an error body names in a field, or (the last resort) in its message.

Sources: Google (`google.rpc.RetryInfo`), OpenRouter (`error.metadata.headers`), Discord and gateways made after it
(`retry_after` in seconds), Hugging Face (`estimated_time` while a model is loaded), Cloudflare's RFC 9457 body
(`retry_after`), OpenAI's usage limits (`resets_in_seconds`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from midwatch.orchestration.protocol.named_times import DURATION, bounded_ms, duration_ms, number_ms, wait_ms
from midwatch.orchestration.protocol.retry_after import exhausted_reset_ms, retry_after_ms

IN_MS = ("retry_after_ms", "retryAfterMs", "retry-after-ms")
IN_ANY_FORM = (
    "retry_after", "retryAfter", "retry-after", "retry_after_seconds", "retryAfterSeconds", "retry_in", "retryDelay",
    "retry_delay", "resets_in_seconds", "reset_after", "resets_at", "reset_at", "resetsAt",
    "retry_after_secs", "retry_after_sec", "wait_seconds", "estimated_time", "next_retry_at",
)  # fmt: skip

INSIDE = ("metadata", "data", "extra")
"""Fields of an error object whose fields are read, too."""

_SPOKEN = re.compile(
    r"\b(?:(?:try again|try|retry|resets?|available)\b[^.;:,]{0,30}?\b(?:in|after)|wait(?:ing)?(?: for)?)\s*:?\s*"
    r"(?:about |approximately |at least |another )?" + f"({DURATION})",
    re.ASCII | re.IGNORECASE,
)
"""`Please try again in 6m0s` (OpenAI, Groq), `Please retry after 26 seconds` (Azure), `Please wait 5 seconds`."""


def read_body_wait_ms(objects: Sequence[Mapping[str, object]]) -> int | None:
    """Read the wait in the error objects of a body, from the innermost to the outermost."""
    return next((wait for one in reversed(objects) for wait in _waits_of(one)), None)


def read_spoken_wait_ms(message: str) -> int | None:
    """Read the wait in a message for people. It is only used if neither a header nor a field names one."""
    found = _SPOKEN.search(message[:2_000])
    return duration_ms(found[1]) if found else None


def _waits_of(one: Mapping[str, object]) -> Iterator[int]:
    details = one.get("details")
    holders = [
        one,
        *(one.get(name) for name in ("metadata", "data", "extra")),
        *(details if isinstance(details, list) else [details]),
    ]
    for holder in holders:
        if not isinstance(holder, Mapping):
            continue
        found = [_read_number(holder.get(name), in_ms=True) for name in IN_MS]
        found += [_read_number(holder.get(name), in_ms=False) for name in IN_ANY_FORM]
        headers = holder.get("headers")
        if isinstance(headers, Mapping):
            lower = {str(name).lower(): str(value) for name, value in headers.items()}
            found += [retry_after_ms(lower), exhausted_reset_ms(lower)]
        yield from (wait for wait in found if wait is not None)


def _read_number(value: object, *, in_ms: bool) -> int | None:
    if isinstance(value, Mapping):  # google.protobuf.Duration as an object
        value = value.get("seconds")
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return bounded_ms(float(value)) if in_ms else number_ms(float(value))
    if not isinstance(value, str):
        return None
    return wait_ms(value if not in_ms else f"{value}ms")
