"""Questions to a human: what a parked step asks, and what happens when no one answers in time."""

from __future__ import annotations

from midwatch.orchestration.agents.agent import Agent
from midwatch.schemas.decision import ParkReason
from midwatch.schemas.step import Park


def make_question(agent: Agent, reason: ParkReason, question: str, tool: str = "") -> Park:
    """Ask a human. The agent's `Escalation` for this reason (and this tool) says when the question expires."""
    for rule in agent.escalation:
        if rule.when == reason and (not rule.tools or tool in rule.tools) and rule.expires_s is not None:
            expires_ms = max(1, int(rule.expires_s * 1_000))
            return Park(question=question, reason=reason, expires_ms=expires_ms, on_expiry=rule.on_expiry)
    return Park(question=question, reason=reason)
