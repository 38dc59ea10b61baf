"""Finds the refusal that a fault or a full context window demands."""

from __future__ import annotations

from midwatch.workers.simulator.brains.brain import Conversation
from midwatch.workers.simulator.faults.faults import REFUSING, Fault, Faults
from midwatch.workers.simulator.metering import Meter
from midwatch.workers.simulator.vendor_formats.vendor_format import Refusal, RefusalKind

USUAL_WINDOW_TOKENS = 200_000
"""The limit that a simulated overflow names, if the prompt is larger than that."""

USUAL_REQUESTS_PER_MINUTE = 60
"""The limit that a simulated 429 names, if no limit is set."""


def find_refusal(faults: Faults, fault: Fault | None, conversation: Conversation, meter: Meter) -> Refusal | None:
    """Return the refusal of a request, or None if neither the fault nor the context window refuses it."""
    window = faults.context_window_tokens
    if fault in REFUSING:
        kind = RefusalKind(fault)
    elif window is not None and meter.count(conversation) > window:
        kind = RefusalKind.CONTEXT_OVERFLOW
    else:
        return None
    if kind is RefusalKind.RATE_LIMITED:
        limit = faults.requests_per_minute or USUAL_REQUESTS_PER_MINUTE
        return Refusal(kind, model=conversation.model, limit=limit, retry_after_s=faults.retry_after_s)
    if kind is RefusalKind.OVERLOADED:
        return Refusal(kind, model=conversation.model, retry_after_s=faults.overloaded_retry_after_s)
    tokens = meter.count(conversation) if kind is RefusalKind.CONTEXT_OVERFLOW else 0
    limit = window or max(1, min(USUAL_WINDOW_TOKENS, tokens - 1))
    return Refusal(kind, model=conversation.model, tokens=tokens, limit=limit)
