"""Reads a provider's rate-limit headers as figures per minute: Anthropic's and OpenAI's names.

Sources: platform.claude.com/docs/en/api/rate-limits, developers.openai.com guides/rate-limits (November 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HEADERS = {
    "requests": ("anthropic-ratelimit-requests-{}", "x-ratelimit-{}-requests"),
    "input_tokens": ("anthropic-ratelimit-input-tokens-{}",),
    "output_tokens": ("anthropic-ratelimit-output-tokens-{}",),
    "tokens": ("x-ratelimit-{}-tokens", "x-ratelimit-{}-project-tokens"),
}
"""Header names by the resource that they limit (`legend.RESOURCES`)."""


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
    return Figures(remaining=_figures(headers, "remaining"), limits=_figures(headers, "limit"))


def _figures(headers: Mapping[str, str], kind: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for resource, names in HEADERS.items():
        figures = [n for name in names if (n := _number(headers.get(name.format(kind)))) is not None]
        if figures:
            found[resource] = min(figures)
    return found


def _number(text: str | None) -> float | None:
    """Read a count. Text with a sign, a letter or more than twelve digits is ignored."""
    text = (text or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 13 else None
