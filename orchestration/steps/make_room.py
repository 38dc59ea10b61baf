"""Make room in the window: a turn whose conversation is too long waits for a compaction, or asks a human."""

from __future__ import annotations

import structlog

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.context import window
from midwatch.orchestration.errors import LeaseLost
from midwatch.orchestration.protocol.addresses import own_session_id
from midwatch.orchestration.protocol.claims import ClaimRefusal
from midwatch.orchestration.steps.attempt import Attempt
from midwatch.orchestration.steps.compaction.compactor import Compacted, Compactor
from midwatch.orchestration.tokens.estimate import LEAST_PRIOR
from midwatch.schemas.decision import HumanDecision, ParkReason, Verdict
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import Job
from midwatch.schemas.step import Defer, Outcome, Park, WaitOwner

log = structlog.get_logger("midwatch.context")

COUNT_ABOVE = 0.9
"""From this fill on, the provider counts the tokens if it can. That costs a call, while an estimate costs nothing."""

SURE_SHARE = 0.98
"""Up to this fill a compacted request is sent. The estimate of a request that no report covers is off by 1 to 2 %."""

LOOK_AGAIN_MS = 1_000
"""How long a turn is deferred while another worker compacts its session."""

COMPACTION_MS = 180_000
"""The longest time for which a turn keeps its lease during a compaction."""


def estimate_tokens(attempt: Attempt, agent: Agent) -> int:
    """Estimate the tokens of the claimed conversation."""
    claim = attempt.claim
    return attempt.services.estimator.estimate(str(agent.model), window.weight_of(agent, claim), claim.anchor)


def estimate_at_most(attempt: Attempt, agent: Agent) -> int:
    """Estimate the tokens with a margin for error. This figure must not exceed the budget."""
    claim = attempt.claim
    return attempt.services.estimator.at_most(str(agent.model), window.weight_of(agent, claim), claim.anchor)


def make_room(attempt: Attempt, agent: Agent, *, overflowed: bool = False) -> Outcome | None:
    """Make the claimed conversation fit the budget. Returns an outcome if the step ends here instead.

    `overflowed` means that the provider refused the request as too long. Then the estimate does not count.
    """
    budget = agent.context_budget
    room = budget.max_tokens - budget.reserve_output
    tokens, counted = estimate_at_most(attempt, agent), None
    if not overflowed:
        if tokens <= budget.wait_at * room:
            return None
        if tokens >= COUNT_ABOVE * room:
            counted = count_tokens(attempt, agent)
            tokens = counted or tokens
        if tokens <= budget.wait_at * room:
            return None
    is_over = overflowed or tokens > room
    detail = f"about {tokens} tokens, of {budget.max_tokens} with {budget.reserve_output} reserved for the answer"
    if budget.on_overflow == "fail":
        failure = Failure(kind=FailureKind.CONTEXT_OVERFLOW, detail=detail)
        return attempt.end_as_dead_letter(failure) if is_over else None
    if budget.on_overflow == "escalate" and not is_approved(attempt.claim.decision):
        return ask_human(attempt, detail) if is_over else None
    return compact_now(attempt, agent, detail, counted, refused=overflowed, must=is_over)


def is_approved(decision: HumanDecision | None) -> bool:
    """Did a human approve the last question?"""
    return decision is not None and decision.verdict is Verdict.APPROVE


def ask_human(attempt: Attempt, detail: str) -> Outcome:
    """Ask a human whether the conversation may be compacted. After a rejection, the job ends instead."""
    decision = attempt.claim.decision
    if decision and decision.verdict is Verdict.REJECT and decision.about in (ParkReason.CONTEXT_FULL, None):
        why = decision.reason or "no reason given"
        full = f"the context is full ({detail}), and a human decided against compaction: {why}"
        return attempt.end_as_dead_letter(Failure(kind=FailureKind.CONTEXT_OVERFLOW, detail=full[:500]))
    question = f"The context is full ({detail}). Approve to sum it up and go on."
    return attempt.park(Park(question=question, reason=ParkReason.CONTEXT_FULL))


def compact_now(
    attempt: Attempt, agent: Agent, detail: str, counted: int | None, *, refused: bool, must: bool
) -> Outcome | None:
    """Compact the session. Then claim the step again, to read the shorter conversation.

    `counted` is the size of the request if the provider counted it. `refused`: the provider refused the request as too long.
    """
    claim, services = attempt.claim, attempt.services
    compactor = Compactor(services.store, services.model, services.gate, services.estimator)
    above = 0.0 if refused else agent.context_budget.shrink_to
    rate = counted / window.weight_of(agent, claim) if counted else None
    with services.leases.hold(claim, COMPACTION_MS):
        result = compactor.run(
            claim.ref, agent, claim.nonce, job_id=claim.ref.job_id, above=above, refused=refused, rate=rate
        )
    if result is Compacted.BUSY:
        if not must:
            return None
        reason = "its session is being compacted"
        defer = Defer(after_ms=LOOK_AGAIN_MS, reason=reason, counts_as_attempt=False, owner=WaitOwner.SESSION)
        return attempt.defer(defer)
    again = services.store.claim(claim.ref, claim.nonce)
    if isinstance(again, ClaimRefusal):
        raise LeaseLost
    attempt.claim = again
    if not must and result is not Compacted.DONE:
        return None
    if is_too_long(attempt, agent):
        why = f"compaction freed too little: prompt, tools and the newest messages alone are too large ({detail})"
        return attempt.end_as_dead_letter(Failure(kind=FailureKind.CONTEXT_OVERFLOW, detail=why))
    return None


def is_too_long(attempt: Attempt, agent: Agent) -> bool:
    """Is the compacted conversation too long for a call?

    An estimate for a model that has not reported yet can be far too high. Then the provider's counter decides. If it has none,
    only a conversation that is certainly too long is not sent, since the provider refuses one that is too long.
    """
    claim, estimator, model = attempt.claim, attempt.services.estimator, str(agent.model)
    room = agent.context_budget.max_tokens - agent.context_budget.reserve_output
    if estimate_tokens(attempt, agent) <= SURE_SHARE * room:
        return False
    if counted := count_tokens(attempt, agent):
        return counted > room
    rate = estimator.known_rate(model, claim.anchor)
    return rate is not None or window.weight_of(agent, claim) * LEAST_PRIOR > SURE_SHARE * room


def count_tokens(attempt: Attempt, agent: Agent) -> int | None:
    """Count the tokens of the call with the provider's own counter. None if the provider has none, or if it fails."""
    try:
        return attempt.services.model(agent.model.provider).count(window.assemble(agent, attempt.claim))
    except Exception as error:  # a failed count must not stop the call, which may well succeed
        log.info("context.not_counted", job_id=attempt.claim.ref.job_id, error=type(error).__name__)
        return None


def has_little_room(agent: Agent, tokens: int) -> bool:
    """Should a compaction run in a task of its own? `tokens` is the size of the last call with its answer."""
    budget = agent.context_budget
    room = budget.max_tokens - budget.reserve_output
    return budget.on_overflow in ("summarize_and_trim", "trim_oldest") and tokens > budget.act_at * room


def has_successors(job: Job) -> bool:
    """May more jobs run in the session of a job that has ended? A session that was made for one job is seldom used again."""
    return job.session_id != own_session_id(job.job_id)
