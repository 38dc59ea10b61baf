"""Validates the token counts that a provider reports. Impossible counts are treated as not reported."""

from __future__ import annotations

from midwatch.schemas.model import Stop, Usage

MAX_TOKENS = 100_000_000
"""No call is this large. A higher count is the provider's error, and would make budgets and prices wrong."""

UNREPORTED = Usage(reported=False)

CUT_SHORT_SHARE = 0.01
CUT_SHORT_TOKENS = 16
CUT_SHORT_FROM_TOKENS = 1_024
"""A server often reports a full window as a length stop, not as an error. At 99.9 % fill, a real server answered 200
with stop reason 'length' after 3 of 64 requested tokens. So a length stop means a full window if at least 1,024 tokens
were requested and the reply has at most 16 of them, or at most 1 %."""


def read_usage(
    input_tokens: object, output_tokens: object, *, cached: object = 0, cache_write: object = 0, reasoning: object = 0
) -> Usage:
    """Build a Usage from these counts. If one is missing or impossible, all are zero and `reported` is False.

    `input_tokens` counts the whole prompt, including its cached part.
    """
    counts = [_check_count(value) for value in (input_tokens, output_tokens)]
    parts = [0 if value is None else _check_count(value) for value in (cached, cache_write, reasoning)]
    if None in counts or None in parts:
        return UNREPORTED
    read, written, from_cache, to_cache, thought = (count or 0 for count in counts + parts)
    # A request is never empty, so zero input tokens means that the provider did not count.
    if read == 0 or from_cache + to_cache > read or thought > written:
        return UNREPORTED
    return Usage(
        input_tokens=read,
        cached_tokens=from_cache,
        cache_write_tokens=to_cache,
        output_tokens=written,
        reasoning_tokens=thought,
    )


def add_counts(*counts: object) -> int | None:
    """Add counts that a provider reports separately; None if one of them is missing or impossible."""
    known = [_check_count(count) for count in counts]
    return None if None in known else sum(count or 0 for count in known)


def classify_length_stop(usage: Usage, requested_tokens: int) -> Stop:
    """Decide what a length stop means: the requested limit was reached, or the window is full."""
    if not usage.reported or requested_tokens < CUT_SHORT_FROM_TOKENS:
        return Stop.LENGTH
    cut_short = usage.output_tokens <= max(CUT_SHORT_TOKENS, int(requested_tokens * CUT_SHORT_SHARE))
    return Stop.CONTEXT_FULL if cut_short else Stop.LENGTH


def _check_count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or not 0 <= value <= MAX_TOKENS:
        return None
    return int(value) if value == int(value) else None
