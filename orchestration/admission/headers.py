"""Reads a provider's rate-limit headers as figures per minute.

Sources: platform.claude.com/docs/en/api/rate-limits; developers.openai.com guides/rate-limits (November 2026); Cerebras and
Mistral (`-minute`; mistralai/client-ts 169), Fireworks (`-tokens-prompt`, `-tokens-generated`), Together (per second: it also
sends `x-tokenlimit-limit`), Kong (`x-ratelimit-limit-minute`), and the IETF's draft (`quota_fields`). The figures of an hour,
a day or a month are not read: a limit of a day says nothing about a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from midwatch.orchestration.protocol.named_times import wait_ms
from midwatch.orchestration.protocol.quota_fields import read_count, read_quotas

HEADERS = {
    "requests": (
        "anthropic-ratelimit-requests-{}", "x-ratelimit-{}-requests", "x-ratelimit-{}-requests-minute",
        "x-ratelimit-{}-req-minute", "x-ratelimit-{}-minute",
    ),
    "input_tokens": ("anthropic-ratelimit-input-tokens-{}", "x-ratelimit-{}-tokens-prompt"),
    "output_tokens": ("anthropic-ratelimit-output-tokens-{}", "x-ratelimit-{}-tokens-generated"),
    "tokens": (
        "x-ratelimit-{}-tokens", "x-ratelimit-{}-project-tokens", "x-ratelimit-{}-tokens-minute", "ratelimitbysize-{}",
        "x-ratelimitbysize-{}-minute",
    ),
}  # fmt: skip
"""Header names by the resource that they limit (`legend.RESOURCES`)."""

PER_SECOND: dict[str, tuple[str, ...]] = {
    "requests": ("x-ratelimit-limit-second", "x-ratelimit-limit-requests-second"),
    "tokens": ("x-ratelimit-limit-tokens-second", "x-tokenlimit-limit"),
}
"""Limits of a second. What remains of a second is gone before the next call, so it is not read."""

LONGEST_WINDOW_S = 60
"""A limit of a longer window may be used up at once, so it is no limit of a minute."""


LONGER_WINDOWS_S = (3_600, 86_400)

MIN_SHARE = 0.1
"""Least part of a used request that counts as being refilled. Below it, any reset would fit the refill of a day."""

ANY_WINDOW = ("x-ratelimit-{}-requests", "x-ratelimit-{}-tokens", "x-ratelimit-{}-project-tokens")
"""Headers that do not name their window. Groq's `-requests` is a limit of a day (console.groq.com/docs/rate-limits), and so is
OpenAI's for accounts with a daily limit."""


@dataclass(frozen=True)
class Figures:
    """Figures by the resource that they limit. A figure that no header names is absent."""

    remaining: Mapping[str, float]
    limits: Mapping[str, float]

    def __bool__(self) -> bool:
        """Did any header name a figure?"""
        return bool(self.remaining or self.limits)


def read(headers: Mapping[str, str]) -> Figures:
    """Read the figures in headers, whose names are in lower case. If two limit the same resource, the lower limit counts."""
    known = [(resource, name) for resource, names in HEADERS.items() for name in names]
    known = [(resource, name) for resource, name in known if name not in ANY_WINDOW or not _is_long(headers, name)]
    remaining = [(resource, read_count(headers.get(name.format("remaining")))) for resource, name in known]
    limits = [(resource, read_count(headers.get(name.format("limit")))) for resource, name in known]
    return Figures(remaining=_lowest(remaining), limits=_lowest(limits + _per_second(headers) + _quotas(headers)))


def _is_long(headers: Mapping[str, str], name: str) -> bool:
    """Is it a limit of an hour or a day?

    Its reset tells: it is later than a minute from now, or it fits the refill of an hour or a day and not that of a minute. A
    bucket of 10,000 a day gets one request back in 8.64 s.
    """
    reset_ms = wait_ms(headers.get(name.format("reset")), headers.get("date"))
    limit, left = (read_count(headers.get(name.format(word))) for word in ("limit", "remaining"))
    if reset_ms is None:
        return False
    if reset_ms > 1_000 * LONGEST_WINDOW_S:
        return True
    if not limit or left is None or left >= limit or not reset_ms:
        return False
    used = limit - left  # a whole number, rounded up: a request that is half refilled counts as used
    refilling = [limit * reset_ms / 1_000 / window_s for window_s in (LONGEST_WINDOW_S, *LONGER_WINDOWS_S)]
    fits = [MIN_SHARE <= share <= used * 1.02 and used - share < 1 for share in refilling]
    return not fits[0] and any(fits[1:])


def _per_second(headers: Mapping[str, str]) -> list[tuple[str, float | None]]:
    names = dict(PER_SECOND)
    if "x-tokenlimit-limit" in headers:
        names["requests"] += ("x-ratelimit-limit",)
    found = [(resource, read_count(headers.get(name))) for resource, several in names.items() for name in several]
    return [(resource, None if count is None else 60 * count) for resource, count in found]


def _quotas(headers: Mapping[str, str]) -> list[tuple[str, float | None]]:
    return [
        ("tokens" if quota.unit == "tokens" else "requests", quota.limit * 60 / quota.window_s)
        for quota in read_quotas(headers)
        if quota.limit is not None and quota.window_s and quota.window_s <= LONGEST_WINDOW_S
        if quota.unit in ("requests", "tokens")
    ]


def _lowest(figures: list[tuple[str, float | None]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for resource, figure in figures:
        if figure is not None:
            found[resource] = min(figure, found.get(resource, figure))
    return found
