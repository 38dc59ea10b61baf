"""Token figures as a provider reports them: believed when they can be true, otherwise marked as not reported."""

from __future__ import annotations

from midwatch.schemas.model import Stop, Usage

MAX_TOKENS = 100_000_000
"""No call is this large; a figure above it is an error of the provider, and would wreck budgets and prices."""

UNREPORTED = Usage(reported=False)

CUT_SHORT_SHARE = 0.01
CUT_SHORT_TOKENS = 16
CUT_SHORT_FROM_TOKENS = 1_024
"""A full window often is no error: at 99.9 % fill a real server answered 200, stop 'length', with 3 tokens of the 64
asked for. So a length stop after at most 16 tokens, or 1 %, of at least 1,024 requested ones means a full window."""


def read_usage(
    input_tokens: object, output_tokens: object, *, cached: object = 0, cache_write: object = 0, reasoning: object = 0
) -> Usage:
    """Usage of these figures, or zeros and `reported=False` when one is missing or can't be true.

    `input_tokens` is everything that was read; the cached part is contained in it.
    """
    counts = [_count(value) for value in (input_tokens, output_tokens)]
    parts = [0 if value is None else _count(value) for value in (cached, cache_write, reasoning)]
    if None in counts or None in parts:
        return UNREPORTED
    read, written, from_cache, to_cache, thought = (count or 0 for count in counts + parts)
    # A request is never empty: zero input means that nobody counted.
    if read == 0 or from_cache + to_cache > read or thought > written:
        return UNREPORTED
    return Usage(
        input_tokens=read,
        cached_tokens=from_cache,
        cache_write_tokens=to_cache,
        output_tokens=written,
        reasoning_tokens=thought,
    )


def total(*counts: object) -> int | None:
    """The sum of figures that a provider reports apart; None when one of them is missing or can't be true."""
    known = [_count(count) for count in counts]
    return None if None in known else sum(count or 0 for count in known)


def length_stop(usage: Usage, requested_tokens: int) -> Stop:
    """What 'stopped at the length limit' means: the limit that was asked for, or a full window."""
    if not usage.reported or requested_tokens < CUT_SHORT_FROM_TOKENS:
        return Stop.LENGTH
    cut_short = usage.output_tokens <= max(CUT_SHORT_TOKENS, int(requested_tokens * CUT_SHORT_SHARE))
    return Stop.CONTEXT_FULL if cut_short else Stop.LENGTH


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or not 0 <= value <= MAX_TOKENS:
        return None
    return int(value) if value == int(value) else None
