"""What a human decided about a parked step."""

from __future__ import annotations

from enum import StrEnum

from midwatch.schemas.contract import Record


class ParkReason(StrEnum):
    """What a parked step asks a human."""

    TOOL_APPROVAL = "tool_approval"
    """May this call run?"""
    UNKNOWN_EFFECT = "unknown_effect"
    """The call had begun when its worker vanished. May it run again?"""
    REPEATED_FAILURE = "repeated_failure"
    """The model repeats calls that are refused. May it go on?"""
    CONTEXT_FULL = "context_full"
    """The conversation exceeds its budget. May it be compacted?"""


class Verdict(StrEnum):
    """A human's answer."""

    APPROVE = "approve"
    REJECT = "reject"


class HumanDecision(Record):
    """One decision. It is valid for one try: a step that parks again needs a new decision."""

    verdict: Verdict
    about: ParkReason | None = None
    """The question that was answered. None in an approval, which needs no question, and in decisions of releases before 0.2."""
    reason: str = ""
    """The human's own words. They are shown to the model and never interpreted."""
    expired: bool = False
    """No human decided in time. The agent's `on_expiry` did."""
