"""A turn that has no room left waits for a compaction; one that has little sets one off beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.context import window
from midwatch.orchestration.errors import LeaseLost
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.steps.compaction_step import Compacted
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.model import ModelRequest
from midwatch.schemas.step import Defer, Outcome, Park

if TYPE_CHECKING:
    from midwatch.orchestration.steps.runner import Attempt

log = structlog.get_logger("midwatch.context")

COUNT_ABOVE = 0.9
"""From this fill on the provider's own counter is asked, where it has one: it costs a call, an estimate costs nothing."""

LOOK_AGAIN_MS = 1_000
"""When a turn looks again whose session someone else compacts."""


def tokens_of(attempt: Attempt, agent: Agent) -> int:
    """What the claimed conversation is, in tokens, by estimate."""
    claim = attempt.claim
    return attempt.r.estimator.estimate(str(agent.model), window.weight_of(agent, claim), claim.anchor)


def most_tokens_of(attempt: Attempt, agent: Agent) -> int:
    """The same, with a margin: what must not be over the budget."""
    claim = attempt.claim
    return attempt.r.estimator.at_most(str(agent.model), window.weight_of(agent, claim), claim.anchor)


def fit(attempt: Attempt, agent: Agent, *, overflowed: bool = False) -> Outcome | None:
    """Make the attempt's claim fit the budget, or say how the step ends instead.

    `overflowed`: the provider refused the request as too long, whatever we thought.
    """
    budget = agent.context_budget
    room = budget.max_tokens - budget.reserve_output
    tokens = most_tokens_of(attempt, agent)
    if not overflowed:
        if tokens <= budget.wait_at * room:
            return None
        if tokens >= COUNT_ABOVE * room:
            tokens = counted(attempt, agent, window.assemble(agent, attempt.claim)) or tokens
        if tokens <= budget.wait_at * room:
            return None
    over = overflowed or tokens > room
    detail = f"about {tokens} tokens, of {budget.max_tokens} with {budget.reserve_output} reserved for the answer"
    if budget.on_overflow == "fail":
        return attempt.dead(Failure(kind=FailureKind.CONTEXT_OVERFLOW, detail=detail)) if over else None
    if budget.on_overflow == "escalate" and attempt.claim.verdict != "approved":
        return escalated(attempt, detail) if over else None
    return compacted(attempt, agent, detail, above=0.0 if overflowed else budget.shrink_to, must=over)


def escalated(attempt: Attempt, detail: str) -> Outcome:
    """A human decides whether the conversation is summed up; one who was asked and said no is not asked again."""
    if attempt.claim.verdict.startswith("rejected:"):
        why = attempt.claim.verdict.removeprefix("rejected:").strip() or "no reason given"
        said = f"the context is full ({detail}), and a human decided against compaction: {why}"
        return attempt.dead(Failure(kind=FailureKind.CONTEXT_OVERFLOW, detail=said[:500]))
    question = f"The context is full ({detail}). Approve to sum it up and go on."
    return attempt.parked(Park(question=question, reason="context_full"))


def compacted(attempt: Attempt, agent: Agent, detail: str, *, above: float, must: bool) -> Outcome | None:
    """Compact now, and take the step again with what is left."""
    claim = attempt.claim
    with attempt.r.leases.hold(claim, 180_000):
        done = attempt.r.compactor.run(claim.ref, agent, claim.nonce, job_id=claim.ref.job_id, above=above)
    if done is Compacted.BUSY:
        if not must:
            return None
        defer = Defer(after_ms=LOOK_AGAIN_MS, reason="its session is being compacted", counts_as_attempt=False)
        return attempt.deferred(defer)
    again = attempt.r.store.claim(claim.ref, claim.nonce)
    if isinstance(again, ClaimRefusal):
        raise LeaseLost
    attempt.claim = again
    if not must and done is not Compacted.DONE:
        return None
    room = agent.context_budget.max_tokens - agent.context_budget.reserve_output
    if tokens_of(attempt, agent) > room:
        why = f"compaction freed too little: prompt, tools and the newest messages alone are too large ({detail})"
        return attempt.dead(Failure(kind=FailureKind.CONTEXT_OVERFLOW, detail=why))
    return None


def counted(attempt: Attempt, agent: Agent, request: ModelRequest) -> int | None:
    """Tokens by the provider's own counter; None when it has none, or it does not answer."""
    try:
        return attempt.r.model(agent.model.provider).count(request)
    except Exception as error:  # a counter that fails must not stop a call that would have gone well
        log.info("context.not_counted", job_id=attempt.claim.ref.job_id, error=type(error).__name__)
        return None


def little_room(agent: Agent, claim: Claim, tokens: int) -> bool:
    """Is it time for a compaction beside the job?"""
    budget = agent.context_budget
    return budget.on_overflow in ("summarize_and_trim", "trim_oldest") and tokens > budget.act_at * (
        budget.max_tokens - budget.reserve_output
    )
