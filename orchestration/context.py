"""Assemble what one model call sees: system prompt, tools, and as much of the conversation as the budget holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestration.agent import Agent
from orchestration.commits import Claim
from orchestration.errors import ModelError
from orchestration.results import READ_RESULT
from schemas.failure import Failure, FailureKind
from schemas.message import Message, UserMessage
from schemas.model import ModelRequest

BYTES_PER_TOKEN = 2.5
"""Conservative for JSON and prose alike: characters/4 counts half of what recent tokenizers do (measured)."""


def assemble(agent: Agent, claim: Claim) -> ModelRequest:
    """The request of this turn. Deterministic: the same claim gives the same request.

    Raises:
        ModelError: context_overflow, when the agent's budget says `fail` or `escalate` and the conversation is over it.

    """
    tools = agent.toolbox.specs + ((READ_RESULT,) if "results" in claim.flags else ())
    budget = agent.context_budget
    fixed_bytes = agent.fixed_bytes
    room_bytes = (budget.max_tokens - budget.reserve_output) * BYTES_PER_TOKEN - fixed_bytes
    messages: Sequence[Message] = claim.log
    if claim.log_bytes > room_bytes:
        if budget.on_overflow in ("fail", "escalate"):
            tokens = math.ceil((claim.log_bytes + fixed_bytes) / BYTES_PER_TOKEN)
            detail = (
                f"about {tokens} tokens, of {budget.max_tokens} with {budget.reserve_output} reserved for the answer"
            )
            raise ModelError(Failure(kind=FailureKind.CONTEXT_OVERFLOW, detail=detail))
        messages = trim_oldest(claim.log, room_bytes)
    # Every part was validated when it was made: to do it again would cost more with every turn.
    return ModelRequest.model_construct(
        model=agent.model.model,
        system=agent.system,
        messages=tuple(messages),
        tools=tools,
        max_output_tokens=budget.reserve_output,
        timeout_s=agent.limits.call_timeout_s,
        output_schema=agent.output_schema,
        cache_key=claim.ref.session_id,
    )


def estimated_tokens(agent: Agent, claim: Claim) -> int:
    """What a call reads, at most: for admission."""
    return min(agent.context_budget.max_tokens, int((claim.log_bytes + agent.fixed_bytes) / BYTES_PER_TOKEN) + 1)


def trim_oldest(messages: Sequence[Message], room_bytes: float) -> list[Message]:
    """The newest whole groups that fit. Never splits a group.

    Two messages stay whatever has to go: the first, which says what the session is about, and the user's latest, which
    is being answered: without it the model would answer an earlier question once more.
    """
    first, rest = list(messages[:1]), list(messages[1:])
    asked = [message for message in rest if isinstance(message, UserMessage)][-1:]
    used = _size_bytes(first) + _size_bytes(asked)
    kept: list[Message] = []
    while rest:
        group = rest[-1].group
        start = len(rest)
        while start and rest[start - 1].group == group:
            start -= 1
        size = 0 if rest[start:] == asked else _size_bytes(rest[start:])
        if kept and used + size > room_bytes:
            return [*first, *(message for message in asked if message in rest), *kept]
        kept = rest[start:] + kept
        used += size
        del rest[start:]
    return first + kept


def _size_bytes(messages: Sequence[Message]) -> int:
    return sum(len(message.model_dump_json()) for message in messages)
