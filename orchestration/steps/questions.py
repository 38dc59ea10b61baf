"""Questions to a human: what a parked step asks, and what happens when no one answers in time."""

from __future__ import annotations

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.steps.attempt import Attempt
from midwatch.schemas.decision import ParkReason, Verdict
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.step import Outcome, Park


def make_question(agent: Agent, reason: ParkReason, question: str, tool: str = "") -> Park:
    """Ask a human. The agent's `Escalation` for this reason (and this tool) says when the question expires."""
    for rule in agent.escalation:
        if rule.when == reason and (not rule.tools or tool in rule.tools) and rule.expires_s is not None:
            expires_ms = max(1, int(rule.expires_s * 1_000))
            return Park(question=question, reason=reason, expires_ms=expires_ms, on_expiry=rule.on_expiry)
    return Park(question=question, reason=reason)


def end_if_rejected(attempt: Attempt) -> Outcome | None:
    """End a job whose model repeats calls that are refused, if a human decided so, or if no one decided in time."""
    decision = attempt.claim.decision
    if decision is None or decision.verdict is not Verdict.REJECT or decision.about is not ParkReason.REPEATED_FAILURE:
        return None
    by = "" if decision.expired else "a human decided that it does not go on: "
    why = decision.reason or "no reason given"
    detail = f"repeated_failure: the model repeated calls that were refused; {by}{why}"
    return attempt.end_as_dead_letter(Failure(kind=FailureKind.FORMAT_ERROR, detail=detail[:500]))
