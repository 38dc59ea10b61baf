"""Read a time that a server names, in all of its forms, as a bounded wait from now.

Forms: seconds with or without a fraction; seconds or milliseconds since 1970; `6m0s`, `20ms`, `5 seconds`, `PT1M30S`; an
HTTP date in its three forms (RFC 9110, 5.6.7); an RFC 3339 time. A negative wait and a moment in the past are 0.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

MAX_WAIT_MS = 31 * 86_400_000
"""The longest wait that is accepted: a spend limit ends on the first of the next month. A longer wait is a mistake."""

EPOCH_WITHIN_S = 366 * 86_400
"""A number is a moment, not a wait, if it is at most this far from now as seconds or milliseconds since 1970."""

NUMBER = r"(?:\d{1,15}(?:\.\d{0,9})?|\.\d{1,9})"
"""A number as a header may have it. Python would also read `1e9`, `1_000`, `inf` and digits of other scripts."""

UNIT = r"(?:milliseconds?|msecs?|ms|microseconds?|us|µs|μs|ns|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)"

DURATION = rf"{NUMBER}\s?{UNIT}(?:(?:\s|,|\sand\s){{0,2}}{NUMBER}\s?{UNIT}){{0,5}}(?![A-Za-z])"
"""One or more numbers with units."""

_NUMBER = re.compile(rf"[+-]?{NUMBER}", re.ASCII)
_DURATION = re.compile(DURATION, re.ASCII | re.IGNORECASE)
_PART = re.compile(rf"({NUMBER})\s?({UNIT})", re.ASCII | re.IGNORECASE)
_ISO_DURATION = re.compile(rf"P(?:({NUMBER})D)?(?:T(?:({NUMBER})H)?(?:({NUMBER})M)?(?:({NUMBER})S)?)?", re.ASCII)
_SPANS_MS = (86_400_000.0, 3_600_000.0, 60_000.0, 1_000.0)


def wait_ms(text: str | None, date_header: str | None = None) -> int | None:
    """Read any form. None if it is none of them.

    A moment is compared with the response's `date` header, so that a wrong clock here does not change the wait. A date
    without a zone is in UTC.
    """
    text = (text or "").strip().strip('"')
    if _NUMBER.fullmatch(text):
        return number_ms(float(text), date_header)
    duration = duration_ms(text)
    return _until_ms(_date_s(text), date_header) if duration is None else duration


def number_ms(number: float, date_header: str | None = None) -> int | None:
    """Read a number of seconds, or a moment in seconds or milliseconds since 1970."""
    now_s = _now_s(date_header)
    for moment_s in (number, number / 1_000):
        if abs(moment_s - now_s) < EPOCH_WITHIN_S:
            return bounded_ms(1_000 * (moment_s - now_s))
    return bounded_ms(1_000 * number)


def milliseconds(text: str | None) -> int | None:
    """Read a number of milliseconds."""
    text = (text or "").strip()
    return bounded_ms(float(text)) if _NUMBER.fullmatch(text) else None


def duration_ms(text: str) -> int | None:
    """Read numbers with units: `6m0s` (OpenAI), `34.07s` (Google), `20ms`, `5 seconds`, `PT1M30S` (ISO 8601)."""
    text = text.strip()
    if _DURATION.fullmatch(text):
        return bounded_ms(sum(float(number) * _unit_ms(unit.lower()) for number, unit in _PART.findall(text)))
    found = _ISO_DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        return None
    return bounded_ms(sum(float(part or 0) * span for part, span in zip(found.groups(), _SPANS_MS, strict=True)))


def bounded_ms(wait: float) -> int | None:
    """Return a wait in whole milliseconds, from 0 to `MAX_WAIT_MS`. None if it is not a number (NaN)."""
    return None if math.isnan(wait) else round(min(max(wait, 0.0), MAX_WAIT_MS))


def _unit_ms(unit: str) -> float:
    if unit.startswith(("ms", "mil")):
        return 1.0
    if unit.startswith(("us", "µs", "μs", "mic", "ns")):
        return 0.001 if unit != "ns" else 0.000001
    return {"s": 1_000.0, "m": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0}[unit[0]]


def _until_ms(moment_s: float | None, date_header: str | None) -> int | None:
    return None if moment_s is None else bounded_ms(1_000 * (moment_s - _now_s(date_header)))


def _now_s(date_header: str | None) -> float:
    now_s = _date_s(date_header) if date_header else None
    return time.time() if now_s is None else now_s


def _date_s(text: str) -> float | None:
    seconds = _moment_s(text, email.utils.parsedate_to_datetime)
    return _moment_s(text.strip(), datetime.fromisoformat) if seconds is None else seconds


def _moment_s(text: str, parse: Callable[[str], datetime]) -> float | None:
    """Seconds since 1970. A text without a zone is in UTC: `timestamp()` would take the zone of this machine."""
    try:
        moment = parse(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
