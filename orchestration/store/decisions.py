"""A human's decision as the row of a step holds it.

The row holds `approved`, or `rejected:|` and a JSON document with the question and the human's words. Releases before 0.2
wrote only the words after `rejected:`. They replaced every `|`, so those words never look like the JSON document. A worker
of such a release shows the JSON document to the model as the reason.
"""

from __future__ import annotations

import json

from midwatch.schemas.decision import HumanDecision, ParkReason, Verdict
from midwatch.schemas.step import Park

APPROVED = "approved"
REJECTED = "rejected:"
TYPED = "|"
EARLIER_UNKNOWN_EFFECT = "unknown_effect"
"""Releases before 0.2 wrote this word before the reason if the question was about an unknown effect."""


def decision_text(decision: HumanDecision) -> str:
    """The decision as the row of a step holds it. `resolve.lua` writes the same text."""
    if decision.verdict is Verdict.APPROVE:
        return APPROVED
    typed = {"about": decision.about, "reason": decision.reason}
    return REJECTED + TYPED + json.dumps(typed | ({"expired": True} if decision.expired else {}))


def decision_at_expiry(park: Park) -> HumanDecision | None:
    """The decision on a parked step when its question expires. None: it does not expire, or the job ends."""
    if park.expires_ms is None or park.on_expiry == "dead_letter":
        return None
    if park.on_expiry == "approve":
        return HumanDecision(verdict=Verdict.APPROVE)
    reason = f"no decision was made within {park.expires_ms / 1_000:g} s"
    return HumanDecision(verdict=Verdict.REJECT, about=park.reason, reason=reason, expired=True)


def read_decision(text: str) -> HumanDecision | None:
    """Read the decision in a step's row. None if it has none."""
    if not text:
        return None
    if not text.startswith(REJECTED):
        return HumanDecision(verdict=Verdict.APPROVE)
    rest = text.removeprefix(REJECTED)
    if rest.startswith(TYPED):
        typed = json.loads(rest.removeprefix(TYPED))
        about = typed["about"] if typed["about"] in set(ParkReason) else None
        expired = typed.get("expired") is True
        return HumanDecision(verdict=Verdict.REJECT, about=about, reason=typed["reason"], expired=expired)
    about = ParkReason.UNKNOWN_EFFECT if rest.startswith(EARLIER_UNKNOWN_EFFECT) else None
    reason = rest.removeprefix(EARLIER_UNKNOWN_EFFECT).strip() if about else rest
    return HumanDecision(verdict=Verdict.REJECT, about=about, reason=reason)
