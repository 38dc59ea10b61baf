"""Script calls of operators: cancel a job, replay or discard a dead letter."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from midwatch.orchestration.store.records import first_step
from midwatch.orchestration.store.script_calls.script_call import ScriptCall, in_order, or_empty
from midwatch.orchestration.store.step_keys import StepKeys
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import Priority, StepRef


class CancelResult(StrEnum):
    """The result of `cancel`."""

    GONE = "gone"
    """Nothing changed: there is no such job."""
    ENDED = "ended"
    """Nothing changed: the job had already ended."""
    CANCELLED = "cancelled"
    """The queued job ended."""
    MARKED = "marked"
    """The job is running. It ends at its next claim."""


class CancelReply(NamedTuple):
    """The reply of `cancel`."""

    result: CancelResult
    status: JobStatus | None = None
    """With ENDED: the job's status."""
    next_step: StepRef | None = None
    """CANCELLED: first step of the job that has the session now; it must be published."""
    owed_steps: tuple[str, ...] = ()
    """MARKED: steps that must be published."""


class ReplayReply(NamedTuple):
    """The reply of `replay`."""

    replayed: bool
    """False if there is no such job, or if it is not a dead letter."""
    is_lost: bool = False
    """Nothing changed: records of the job are lost, so it can't go on."""
    priority: Priority = Priority.NORMAL
    """The priority of the job's steps from now on."""
    owed_steps: tuple[str, ...] = ()
    """Steps that must be published."""


class DiscardReply(NamedTuple):
    """The reply of `discard`."""

    discarded: bool
    """False if there is no such job, or if it is not a dead letter."""
    next_step: StepRef | None
    """First step of the job that has the session now; it must be published."""


def cancel(keys: StepKeys, *, job: str, session: str, member_base: str, repair_text: str) -> ScriptCall[CancelReply]:
    """Cancel a job. A queued job ends at once. A running job ends at its next claim.

    Args:
        keys: of any step of the job.
        job: its id.
        session: the session's id.
        member_base: see `records.member_base`.
        repair_text: the answer to open calls, if steps of the job are lost.

    """

    def read(reply: Any) -> CancelReply:
        result, rest = CancelResult(reply[0].decode()), [word.decode() for word in reply[1:]]
        match result:
            case CancelResult.ENDED:
                return CancelReply(result, status=JobStatus(rest[0]))
            case CancelResult.CANCELLED:
                return CancelReply(result, next_step=first_step(session, rest[0]))
            case _:
                return CancelReply(result, owed_steps=tuple(rest))

    return ScriptCall("cancel", keys.used(), in_order((job, session, member_base, repair_text)), read)


def replay(
    keys: StepKeys, *, job: str, session: str, lane: Priority | None, redriven: bool, steps_granted: int,
    time_granted_ms: int | None, wait_granted_ms: int | None,
) -> ScriptCall[ReplayReply]:  # fmt: skip
    """Resume a dead letter at the step where it stopped.

    Args:
        keys: of any step of the job.
        job: its id.
        session: the session's id.
        lane: the priority of its steps from now on. None: the job's own.
        redriven: True if no human asked for the replay.
        steps_granted: model turns that the job may take after its last one.
        time_granted_ms: of its own work, from now on. None: its session timeout again.
        wait_granted_ms: that others may hold it, from now on. None: its longest wait again.

    """

    def read(reply: Any) -> ReplayReply:
        result, *rest = (word.decode() for word in reply)
        if result != "replayed":
            return ReplayReply(replayed=False, is_lost=result == "lost")
        return ReplayReply(True, priority=Priority(rest[0]), owed_steps=tuple(rest[1:]))

    args = in_order((
        job, session, lane or "", int(redriven), steps_granted, or_empty(time_granted_ms), or_empty(wait_granted_ms),
    ))  # fmt: skip
    return ScriptCall("replay", keys.used(), args, read)


def adopt(keys: StepKeys, *, child: str, is_added: bool) -> ScriptCall[str]:
    """Record a child that a producer enqueues; with `is_added=False`, forget it.

    Returns `adopted`, `known` if it was recorded before, `gone` if there is no such job, or how the job ended.
    """
    return ScriptCall("adopt", keys.used(), in_order((child, int(is_added))), lambda reply: reply.decode())


def discard(keys: StepKeys, *, job: str, session: str, member_base: str, repair_text: str) -> ScriptCall[DiscardReply]:
    """Discard a dead letter: answer its open calls with `repair_text`, and start the session's next job."""

    def read(reply: Any) -> DiscardReply:
        discarded = reply[0] == b"discarded"
        return DiscardReply(discarded, first_step(session, reply[1]) if discarded else None)

    return ScriptCall("discard", keys.used(), in_order((job, session, member_base, repair_text)), read)
