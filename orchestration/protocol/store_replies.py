"""What the store answers to a renewal, a commit of a turn, a step that is set aside, and a request to compact."""

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


class SetAside(StrEnum):
    """The answer to `Store.set_aside`."""

    LEFT = "left"
    """The step is due again after the wait: another worker may be able to read its records."""
    BURIED = "buried"
    """Its tries are used up: the job has a dead letter."""
    CANCELLED = "cancelled"
    """The job was to be cancelled, and is."""
    GONE = "gone"
    """Another worker holds the step by now, or it is over."""


@dataclass(frozen=True)
class CompactionBusy:
    """Another worker compacts the session."""

    lock_left_ms: int
    """Its lock ends after this time at the latest."""


@dataclass(frozen=True)
class NothingToCompact:
    """The session has no messages, or another job is active in it."""
