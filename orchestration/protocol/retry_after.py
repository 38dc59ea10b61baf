"""Read the headers of a response: the wait that the server asks for, and its rate limits.

The names of the headers must be in lower case, or the mapping must ignore case.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping
from datetime import datetime

MAX_WAIT_MS = 31 * 86_400_000
"""The longest wait that is accepted: a spend limit ends on the first of the next month. A longer wait is a mistake."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1.0, "s": 1_000.0, "m": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0}


def ratelimit(headers: Mapping[str, str]) -> dict[str, str]:
    """The rate-limit headers as they came, names in lower case."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in lower.items() if "ratelimit" in name or name.startswith("retry-after")}


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """The wait that the server asks for: `retry-after-ms`, else `retry-after` as seconds or as an HTTP date.

    A date is compared with the response's `date` header, so that a wrong clock here does not change the wait.
    """
    waits = (_number(headers.get("retry-after-ms"), 1.0), _number(headers.get("retry-after"), 1_000.0))
    for wait_ms in waits:
        if wait_ms is not None:
            return wait_ms
    until_s, now_s = _http_date_s(headers.get("retry-after")), _http_date_s(headers.get("date"))
    return None if until_s is None else _bounded(1_000 * (until_s - (time.time() if now_s is None else now_s)))


def exhausted_reset_ms(headers: Mapping[str, str]) -> int | None:
    """The wait until all exhausted limits are refilled. It is used after a 429 that names no wait."""
    waits = []
    for name, value in ratelimit(headers).items():
        if "remaining" in name and value.strip() == "0":
            reset = headers.get(name.replace("remaining", "reset"))
            wait_ms = None if reset is None else duration_ms(reset, headers.get("date"))
            if wait_ms is not None:
                waits.append(wait_ms)
    return max(waits, default=None)


def duration_ms(text: str, date_header: str | None = None) -> int | None:
    """Convert `6m0s`, `19ms`, `34.07s` (OpenAI, Google) or an RFC 3339 time (Anthropic) to a wait from now."""
    text = text.strip()
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return _bounded(sum(float(number) * _UNIT_MS[unit] for number, unit in parts))
    try:
        until_s = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None
    now_s = _http_date_s(date_header)
    return _bounded(1_000 * (until_s - (time.time() if now_s is None else now_s)))


def _number(text: str | None, unit_ms: float) -> int | None:
    try:
        return None if text is None else _bounded(float(text) * unit_ms)
    except ValueError:
        return None


def _bounded(wait_ms: float) -> int | None:
    """A wait in whole milliseconds, from 0 to `MAX_WAIT_MS`. None if it is not a number (NaN)."""
    if math.isnan(wait_ms):
        return None
    return round(min(max(wait_ms, 0.0), MAX_WAIT_MS))


def _http_date_s(text: str | None) -> float | None:
    try:
        parsed = None if text is None else email.utils.parsedate_tz(text)
        return None if parsed is None else float(email.utils.mktime_tz(parsed))
    except (ValueError, OverflowError):
        return None
