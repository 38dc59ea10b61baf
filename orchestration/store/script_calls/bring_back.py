"""Script calls of stewards: find the steps to publish, mark woken steps as owed, find jobs that have no message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.store.records import refs_of
from midwatch.orchestration.store.script_calls.script_call import ScriptCall, in_order
from midwatch.orchestration.store.step_keys import keys_of_partition
from midwatch.schemas.step import StepRef


class SweepReply(NamedTuple):
    """The reply of `sweep`."""

    next_due_ms: int | None
    """Time until the next step is due. None if no step is deferred."""
    due: tuple[StepRef, ...]
    """Steps to publish now that were claimed before: their wait is over, or their worker is dead."""
    owed: tuple[StepRef, ...]
    """Steps to publish again, because no worker has claimed them in time."""


def sweep(
    keys: Keyspace, partition: int, backlogs: Sequence[str] = (), *, limit: int, patience_ms: int, stale_ms: int,
    model_queue_idle: bool, tools_queue_idle: bool,
) -> ScriptCall[SweepReply]:  # fmt: skip
    """Take the steps of one partition that must be published now.

    Args:
        keys: of the fleet.
        partition: its number.
        backlogs: the keys of the backlogs of all priorities, from high to replay. Empty without hand-off.
        limit: the most entries to take from `due`, and from `owed`.
        patience_ms: how long a step may stay unclaimed while its queue is empty.
        stale_ms: how long a step may stay unclaimed while its queue is not empty.
        model_queue_idle: the model queue is empty.
        tools_queue_idle: the tools queue is empty.

    """

    def read(reply: Any) -> SweepReply:
        next_due_ms, n_due, *members = reply
        refs = tuple(refs_of(members))
        return SweepReply(next_due_ms if next_due_ms >= 0 else None, refs[:n_due], refs[n_due:])

    args = in_order((limit, patience_ms, stale_ms, int(model_queue_idle), int(tools_queue_idle)))
    return ScriptCall("sweep", [keys.index(partition, "due"), keys.index(partition, "owed"), *backlogs], args, read)


def wake(keys: Keyspace, partition: int, *, members: Sequence[str]) -> ScriptCall[list[StepRef]]:
    """Mark as owed the steps of one partition that the coordinator woke. Returns those that must be published."""

    def read(reply: Any) -> list[StepRef]:
        return refs_of(reply)

    return ScriptCall(
        "wake", [keys.index(partition, "due"), keys.index(partition, "owed")], in_order((), members), read
    )


class LookReply(NamedTuple):
    """The reply of `look_over`."""

    next_rank: int
    """Where the next look at older jobs begins."""
    restored: int
    """Number of entries that were written again."""
    lost: tuple[tuple[str, str], ...]
    """Jobs that have lost a record: what is lost (see `errors.RecordLost`), and a member of `due` for the job."""
    unlisted: tuple[tuple[str, str], ...]
    """Dead-lettered jobs without their letter: session and job."""


def look_over(keys: Keyspace, partition: int, *, newest: int, first: int, older: int) -> ScriptCall[LookReply]:
    """Look for jobs of one partition that no message will reach.

    Args:
        keys: of the fleet.
        partition: its number.
        newest: how many of the newest jobs to look at.
        first: rank of the first older job to look at. The newest one has rank 0.
        older: how many older jobs to look at.

    """

    def read(reply: Any) -> LookReply:
        next_rank, restored, lost, unlisted = reply
        found = (line.decode().partition("|") for line in lost)
        pairs = (line.decode().partition("|") for line in unlisted)
        return LookReply(
            next_rank,
            restored,
            tuple((what, member) for what, _, member in found),
            tuple((session, job) for session, _, job in pairs),
        )

    return ScriptCall("look_over", keys_of_partition(keys, partition).used(), in_order((newest, first, older)), read)
