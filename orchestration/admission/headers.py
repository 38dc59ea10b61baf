"""What a provider's rate-limit headers say, as figures per minute: Anthropic's and OpenAI's names.

Sources: platform.claude.com/docs/en/api/rate-limits, developers.openai.com guides/rate-limits (November 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NAMES = (
    ("anthropic-ratelimit-requests-{}", "x-ratelimit-{}-requests"),
    ("anthropic-ratelimit-input-tokens-{}",),
    ("anthropic-ratelimit-output-tokens-{}",),
    ("x-ratelimit-{}-tokens", "x-ratelimit-{}-project-tokens"),
)
"""Of requests, input tokens, output tokens, and both on one axis."""

Four = tuple[float | None, float | None, float | None, float | None]


@dataclass(frozen=True)
class Figures:
    """In the order of `NAMES`; None: not said."""

    remaining: Four
    limits: Four


def read(headers: Mapping[str, str]) -> Figures:
    """The figures in headers whose names are in lower case; the tightest where several name the same."""
    return Figures(remaining=_four(headers, "remaining"), limits=_four(headers, "limit"))


def _four(headers: Mapping[str, str], what: str) -> Four:
    requests, read_in, written, both = (
        min((n for name in names if (n := _number(headers.get(name.format(what)))) is not None), default=None)
        for names in NAMES
    )
    return requests, read_in, written, both


def _number(text: str | None) -> float | None:
    """A count; anything else (a sign, a word, a figure beyond reason) is as if it had not been said."""
    text = (text or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 13 else None
