"""What the store answers to a renewal, a commit of a turn, and a request to compact."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LeaseState(StrEnum):
    """The answer to `Store.renew`."""

    HELD = "held"
    """The lease holds for another `lease_ms`."""
    CANCELLED = "cancelled"
    """The lease holds, but the job was cancelled."""
    LOST = "lost"
    """The step is over, or another worker claimed it."""


class TurnCommitted(StrEnum):
    """The answer to `Store.commit_turn`."""

    COMMITTED = "committed"
    """The turn is in the log, now or since an earlier sending of the same commit."""
    CANCELLED = "cancelled"
    """The turn is in the log, but the job was cancelled: do not run its inline calls."""
    LOST = "lost"
    """The claim no longer holds the step: nothing was written."""


@dataclass(frozen=True)
class CompactionBusy:
    """Another worker compacts the session."""

    lock_left_ms: int
    """Its lock ends after this time at the latest."""


@dataclass(frozen=True)
class NothingToCompact:
    """The session has no messages, or another job is active in it."""
