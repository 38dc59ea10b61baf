"""Validates the token counts that a provider reports. Impossible counts are treated as not reported."""

from __future__ import annotations

from midwatch.schemas.model import Stop, TokenCount, Usage

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

    `input_tokens` counts the whole prompt, including its cached part. An impossible count is named in `impossible`.
    """
    raw: dict[TokenCount, object] = {
        "cached_tokens": cached,
        "cache_write_tokens": cache_write,
        "reasoning_tokens": reasoning,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }
    counts: dict[TokenCount, int] = {}
    for name, value in raw.items():
        count = 0 if value is None else _check_count(value)
        if count is None:
            return _reject(name)
        counts[name] = count
    if counts["cached_tokens"] + counts["cache_write_tokens"] > counts["input_tokens"]:
        return _reject("input_tokens")
    if counts["reasoning_tokens"] > counts["output_tokens"]:
        return _reject("reasoning_tokens")
    # A request is never empty, so zero input tokens means that the provider did not count.
    is_counted = counts["input_tokens"] > 0 and output_tokens is not None
    return Usage.model_validate(counts) if is_counted else UNREPORTED


def add_counts(*counts: object) -> object:
    """Add counts that a provider reports separately. If one of them is missing or impossible, that one is returned."""
    total = 0
    for value in counts:
        count = _check_count(value)
        if count is None:
            return value
        total += count
    return total


def _reject(count: TokenCount) -> Usage:
    return Usage(reported=False, impossible=count)


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
