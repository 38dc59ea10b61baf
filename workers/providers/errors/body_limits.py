"""Reads the limits that an error body names, as headers would name them, so that the coordinator learns from both in one way.

Sources: Google (`google.rpc.QuotaFailure`: `quotaMetric`, `quotaId`, `quotaValue`), OpenRouter (`error.metadata.headers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from midwatch.orchestration.protocol.retry_after import ratelimit
from midwatch.workers.providers.errors.vendor_error import list_error_objects

PER_MINUTE = "perminute"
"""Part of a `quotaId` of a limit per minute. A limit per day says nothing about a minute."""


def read_body_limits(body: object) -> dict[str, str]:
    """Read the limits in an error body. The names are those of headers, in lower case."""
    found: dict[str, str] = {}
    for one in list_error_objects(body):
        for holder in _holders(one):
            headers = holder.get("headers")
            if isinstance(headers, Mapping):
                found |= ratelimit({str(name): str(value) for name, value in headers.items()})
            violations = holder.get("violations")
            for violation in violations if isinstance(violations, list) else ():
                if isinstance(violation, Mapping):
                    found |= _read_violation(violation)
    return found


def _holders(one: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    details = one.get("details")
    for holder in (one.get("metadata"), *(details if isinstance(details, list) else ())):
        if isinstance(holder, Mapping):
            yield holder


def _read_violation(violation: Mapping[str, object]) -> dict[str, str]:
    metric, quota = str(violation.get("quotaMetric", "")).lower(), str(violation.get("quotaId", "")).lower()
    value = str(violation.get("quotaValue", ""))
    if PER_MINUTE not in quota or not value:
        return {}
    if "token" in metric:
        return {f"x-ratelimit-limit-tokens{'-prompt' if 'input' in metric else '-minute'}": value}
    return {"x-ratelimit-limit-requests-minute": value} if "request" in metric else {}
