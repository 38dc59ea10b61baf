"""Can a provider's token counts be true? Counts that can't be true count as not reported, for estimates, budgets and settlement.

Examples: a server whose `prompt_tokens` leave out the cached part, an output of 0 tokens with a long text, a count of 10^12.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.tokens.estimate import BOUNDS, HIDDEN_TOKENS, LEAST_WEIGHT
from midwatch.orchestration.tokens.weight import weigh
from midwatch.schemas.message import Part, Text, ToolCall
from midwatch.schemas.model import ModelReply, TokenCount, Usage

log = structlog.get_logger("midwatch.usage")

LEAST_OUTPUT_WEIGHT = 1_000
"""Like `LEAST_WEIGHT`, for a reply."""

UNCHANGED_SHARE = 0.8
"""A conversation that has grown still has the tokens of the last call, at least this share of them.

The rest is for a compaction since then: other texts of the same weight have up to a fifth fewer tokens
(docs/context.md).
"""

_said: set[str] = set()
"""Models whose counts were logged. One line for each process is enough."""


def find_impossible(
    usage: Usage, *, model: str, weight: int, parts: Iterable[Part], max_output_tokens: int, anchor: Anchor | None
) -> TokenCount | None:
    """Return the name of the count that can't be true: `input_tokens` or `output_tokens`. None if both can be true.

    `weight` is the request's, and `parts` are the reply's.
    """
    fewest, most = BOUNDS
    least = fewest * weight if weight >= LEAST_WEIGHT else 0.0
    if anchor is not None and anchor.model == model and 0 < anchor.weight <= weight:
        least = max(least, UNCHANGED_SHARE * anchor.tokens + fewest * (weight - anchor.weight))
    if not least <= usage.input_tokens <= most * weight + HIDDEN_TOKENS:
        return "input_tokens"
    written = sum(weigh(text) for text in _texts(parts))
    least = fewest * written if written >= LEAST_OUTPUT_WEIGHT else 0.0
    # A server may exceed the call's output limit by a little, which the second bound allows. Thoughts count for the
    # limit, too.
    return None if least <= usage.output_tokens <= 2 * max_output_tokens + HIDDEN_TOKENS else "output_tokens"


def drop_impossible_usage(
    reply: ModelReply, *, model: str, weight: int, max_output_tokens: int, anchor: Anchor | None
) -> ModelReply:
    """Return the reply without its usage if that can't be true, and log it once for each model.

    `usage.impossible` names the wrong count. The provider's adapter may have found it: it rejects what no call can have.
    """
    usage = reply.usage
    wrong = usage.impossible
    if usage.reported:
        wrong = find_impossible(
            usage, model=model, weight=weight, parts=reply.parts, max_output_tokens=max_output_tokens, anchor=anchor
        )
    if wrong is None:
        return reply
    if model not in _said:
        _said.add(model)
        value = getattr(usage, wrong) if usage.reported else None
        log.warning("usage.impossible", model=model, count=wrong, reported=value, weight=weight)
    return reply.model_copy(update={"usage": Usage(reported=False, impossible=wrong)})


def _texts(parts: Iterable[Part]) -> Iterable[str]:
    for part in parts:
        if isinstance(part, Text):
            yield part.text
        elif isinstance(part, ToolCall):
            yield part.raw_arguments
