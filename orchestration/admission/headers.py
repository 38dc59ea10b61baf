"""Reads a provider's rate-limit headers as figures per minute.

Sources: platform.claude.com/docs/en/api/rate-limits; developers.openai.com guides/rate-limits (November 2026); Cerebras and
Mistral (`-minute`; mistralai/client-ts 169), Fireworks (`-tokens-prompt`, `-tokens-generated`), Together (per second: it also
sends `x-tokenlimit-limit`), Kong (`x-ratelimit-limit-minute`), and the IETF's draft (`quota_fields`). The figures of an hour,
a day or a month are not read: a limit of a day says nothing about a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    remaining = [
        (resource, read_count(headers.get(name.format("remaining"))))
        for resource, names in HEADERS.items()
        for name in names
    ]
    limits = [
        (resource, read_count(headers.get(name.format("limit"))))
        for resource, names in HEADERS.items()
        for name in names
    ]
    return Figures(remaining=_lowest(remaining), limits=_lowest(limits + _per_second(headers) + _quotas(headers)))


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
