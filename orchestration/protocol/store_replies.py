"""The store's answers: to a renewal, a commit of a turn, a wait for a child, setting a step aside, the begin of a compaction."""

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
    """The step has ended, or another worker has claimed it."""


class TurnCommitted(StrEnum):
    """The answer to `Store.commit_turn`."""

    COMMITTED = "committed"
    """The turn is in the log. It may be there from an earlier sending of the same commit."""
    CANCELLED = "cancelled"
    """The turn is in the log, but the job was cancelled: do not run its inline calls."""
    ADOPTED = "adopted"
    """Nothing was written: a producer gave the job a child meanwhile. Reserve the turn's calls in the lineage, then commit."""
    LOST = "lost"
    """The claim is no longer valid: nothing was written."""


class ChildWait(StrEnum):
    """The answer to `Store.wait_for_child`."""

    WAITS = "waits"
    """The step is put aside until the child ends."""
    MAX_WAIT = "max_wait"
    """Nothing changed: others have held the job for as long as they may. End it."""
    LOST = "lost"
    """The claim is no longer valid: nothing changed."""


class SetAside(StrEnum):
    """The answer to `Store.set_aside`."""

    LEFT = "left"
    """The step is due again after the wait. Another worker may be able to read its records."""
    BURIED = "buried"
    """All tries are used up. The step is now a dead letter."""
    CANCELLED = "cancelled"
    """A cancellation had been requested. The job is now cancelled."""
    GONE = "gone"
    """Another worker has claimed the step, or it has ended."""


@dataclass(frozen=True)
class CompactionBusy:
    """Another worker is compacting the session."""

    lock_left_ms: int
    """The lock of that worker ends after this time at the latest."""


@dataclass(frozen=True)
class NothingToCompact:
    """The session has no messages, or another job is active in it."""
