"""Read the headers of a response: the wait that the server asks for, and its rate limits.

The names of the headers must be in lower case, or the mapping must ignore case.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

MAX_WAIT_MS = 31 * 86_400_000
"""The longest wait that is accepted: a spend limit ends on the first of the next month. A longer wait is a mistake."""

_SECONDS = re.compile(r"\s*[+-]?(\d{1,15}(\.\d{0,9})?|\.\d{1,9})\s*", re.ASCII)
"""A number as a header may have it. Python would also read `1e9`, `1_000`, `inf` and digits of other scripts."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1.0, "s": 1_000.0, "m": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0}


def ratelimit(headers: Mapping[str, str]) -> dict[str, str]:
    """The rate-limit headers as they came, names in lower case."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in lower.items() if "ratelimit" in name or name.startswith("retry-after")}


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """The wait that the server asks for: `retry-after-ms`, else `retry-after` as seconds or as a date.

    A negative wait and a date in the past are 0. A date is an HTTP date or an RFC 3339 time, in any zone; without one it is in
    UTC. It is compared with the response's `date` header, so that a wrong clock here does not change the wait. Anything else
    is None. The longest wait is `MAX_WAIT_MS`; the coordinator cuts it to `pause_max_s`.
    """
    waits = (_number(headers.get("retry-after-ms"), 1.0), _number(headers.get("retry-after"), 1_000.0))
    for wait_ms in waits:
        if wait_ms is not None:
            return wait_ms
    return _wait_until_ms(_date_s(headers.get("retry-after")), headers.get("date"))


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
    return _wait_until_ms(_moment_s(text, datetime.fromisoformat), date_header)


def _wait_until_ms(until_s: float | None, date_header: str | None) -> int | None:
    """The wait until a moment, from the moment of the response's `date` header. None if there is no moment."""
    now_s = _date_s(date_header)
    return None if until_s is None else _bounded(1_000 * (until_s - (time.time() if now_s is None else now_s)))


def _number(text: str | None, unit_ms: float) -> int | None:
    return _bounded(float(text) * unit_ms) if text is not None and _SECONDS.fullmatch(text) else None


def _bounded(wait_ms: float) -> int | None:
    """A wait in whole milliseconds, from 0 to `MAX_WAIT_MS`. None if it is not a number (NaN)."""
    if math.isnan(wait_ms):
        return None
    return round(min(max(wait_ms, 0.0), MAX_WAIT_MS))


def _date_s(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = _moment_s(text, email.utils.parsedate_to_datetime)
    return _moment_s(text.strip(), datetime.fromisoformat) if seconds is None else seconds


def _moment_s(text: str, parse: Callable[[str], datetime]) -> float | None:
    """Seconds since 1970. A text without a zone is in UTC: `timestamp()` would take the zone of this machine."""
    try:
        moment = parse(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
