"""Read the header fields `RateLimit` and `RateLimit-Policy` of the IETF's draft, in the forms of all its versions.

Source: draft-ietf-httpapi-ratelimit-headers, versions 00 to 10. Versions 08 to 10 have lists of items
(`"default";r=50;t=30`, `"default";q=100;w=60`), version 07 has a dictionary (`limit=100, remaining=50, reset=30`) and
policies without names (`100;w=60`), and versions up to 06 put such policies into `RateLimit-Limit` (`10, 10;w=1`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from midwatch.orchestration.protocol.named_times import wait_ms

_MOST_ITEMS = 20
_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",])+')
_PARAMETER = re.compile(r';\s*([a-z*][a-z0-9_.*-]*)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,\s]+)', re.IGNORECASE)
_COUNT = re.compile(r"\d{1,12}(?:\.0+)?", re.ASCII)


@dataclass(frozen=True)
class Quota:
    """One limit that a server names. A part that it does not name is None."""

    limit: float | None = None
    window_s: float | None = None
    unit: str = "requests"
    remaining: float | None = None
    reset_ms: int | None = None


def read_quotas(headers: Mapping[str, str]) -> list[Quota]:
    """Read every limit in the fields of the draft. The names of the headers must be in lower case."""
    found = [_read_item(item) for item in _split(headers.get("ratelimit-policy")) + _split(headers.get("ratelimit"))]
    for name in ("ratelimit-limit", "x-ratelimit-limit"):
        found += [_read_item(item) for item in _split(headers.get(name)) if ";" in item]
    if (dictionary := _read_dictionary(headers.get("ratelimit"))) is not None:
        found.append(dictionary)
    return [quota for quota in found if quota != Quota(unit=quota.unit)]


def read_count(text: str | None) -> float | None:
    """Read a count. Text with a sign, a letter or more than twelve digits is ignored."""
    text = (text or "").strip()
    return float(text) if _COUNT.fullmatch(text) else None


def _split(text: str | None) -> list[str]:
    return [item.strip() for item in _ITEM.findall((text or "")[:2_000])][:_MOST_ITEMS]


def _read_item(item: str) -> Quota:
    value, _, _ = item.partition(";")
    given = {name.lower(): text.strip('"') for name, text in _PARAMETER.findall(item)}
    limit = read_count(given.get("q"))
    if limit is None and "w" in given:
        limit = read_count(value)
    return Quota(
        limit=limit,
        window_s=read_count(given.get("w")),
        unit=given.get("qu", "requests").lower(),
        remaining=read_count(given.get("r")),
        reset_ms=wait_ms(given["t"]) if "t" in given else None,
    )


def _read_dictionary(text: str | None) -> Quota | None:
    """Read version 07: `limit=100, remaining=50, reset=30`."""
    given = {name.strip().lower(): value.strip() for name, _, value in (item.partition("=") for item in _split(text))}
    if "remaining" not in given:
        return None
    return Quota(remaining=read_count(given["remaining"]), reset_ms=wait_ms(given.get("reset")))
