"""Script calls that put a step aside: defer it, record its loss, park it, wait for a child, resolve it, set it aside, bury it."""

from __future__ import annotations

import json
from enum import IntEnum
from typing import Any, NamedTuple

from midwatch.orchestration.protocol.store_replies import ChildWait, SetAside
from midwatch.orchestration.store.decisions import decision_text
from midwatch.orchestration.store.records import first_step
from midwatch.orchestration.store.script_calls.script_call import ScriptCall, as_json, in_order, or_empty
from midwatch.orchestration.store.step_keys import StepKeys
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.decision import HumanDecision, Verdict
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Waiting
from midwatch.schemas.loss import Loss
from midwatch.schemas.step import StepRef, WaitOwner
from midwatch.schemas.trace import TraceRecord


def defer(
    keys: StepKeys, *, step: str, fence: int, member: str, after_ms: int, counts: bool, wakes: bool, trace: TraceRecord,
    reason: str, owner: WaitOwner, downstream: str | None,
) -> ScriptCall[bool]:  # fmt: skip
    """Put a step back until it is due. Returns False if the claim is no longer valid.

    Args:
        keys: of the step.
        step: of the job.
        fence: of the claim.
        member: the step in `due` and `owed`.
        after_ms: from now.
        counts: it was a failed attempt.
        wakes: the coordinator may wake it before its time.
        trace: of this attempt.
        reason: shown with the job.
        owner: who holds the step.
        downstream: the downstream that holds it, if one does.

    """
    args = in_order((
        step, fence, member, after_ms, int(counts), int(wakes), as_json(trace), json.dumps(reason), owner,
        json.dumps(downstream),
    ))  # fmt: skip
    return ScriptCall("defer", keys.used(), args, bool)


def record_loss(keys: StepKeys, *, step: str, fence: int, member: str, after_ms: int, loss: Loss) -> ScriptCall[bool]:
    """Record the end of a step's separate process, and put the step back until it is due.

    Returns False if the claim is no longer valid.

    Args:
        keys: of the step.
        step: of the job.
        fence: of the claim.
        member: the step in `due` and `owed`.
        after_ms: from now.
        loss: what is known of it.

    """
    args = in_order((step, fence, member, after_ms, as_json(loss)))
    return ScriptCall("record_loss", keys.used(), args, bool)


def park(
    keys: StepKeys, *, step: str, fence: int, member: str, trace: TraceRecord, waiting: Waiting, expires_ms: int | None,
    expiry: HumanDecision | None,
) -> ScriptCall[bool]:  # fmt: skip
    """Put a step aside until a human decides. Returns False if the claim is no longer valid.

    Args:
        keys: of the step.
        step: of the job.
        fence: of the claim.
        member: the step in `due` and `owed`.
        trace: of this attempt.
        waiting: what the job shows.
        expires_ms: until the question expires. None: it does not.
        expiry: the decision at its expiry. None: the job ends.

    """
    args = in_order(
        (
            step, fence, member, as_json(trace), _shown(waiting), or_empty(expires_ms),
            decision_text(expiry) if expiry else "",
        )
    )  # fmt: skip
    return ScriptCall("park", keys.used(), args, bool)


def wait_for_child(
    keys: StepKeys, *, step: str, fence: int, member: str, poll_ms: int, worked_ms: int, waiting: Waiting
) -> ScriptCall[ChildWait]:
    """Put a tool step aside until its child job ends.

    Args:
        keys: of the step.
        step: of the job.
        fence: of the claim.
        member: the step in `due` and `owed`.
        poll_ms: look at the child after this time.
        worked_ms: how long the child has worked so far.
        waiting: what the job shows.

    """
    args = in_order((step, fence, member, poll_ms, worked_ms, _shown(waiting)))
    return ScriptCall("wait_for_child", keys.used(), args, lambda reply: ChildWait(reply.decode()))


def _shown(waiting: Waiting) -> str:
    """What a job waits for, as JSON. The scripts add the times."""
    fields = waiting.model_dump(
        mode="json", include={"step", "reason", "kind", "owner", "on_expiry"}, exclude_none=True
    )
    return json.dumps(fields)


class Resolved(IntEnum):
    """The result of `resolve`."""

    DECIDED = 1
    NOT_PARKED = 0
    """Nothing changed: it was decided before, or is not parked."""
    EXPIRED = -1
    """Nothing changed: the question has expired."""


def resolve(keys: StepKeys, *, step: str, member: str, verdict: Verdict, reason: str) -> ScriptCall[Resolved]:
    """Record a human's decision on a parked step, and mark the step as owed.

    Args:
        keys: of the step.
        step: of the job.
        member: the step in `due` and `owed`.
        verdict: what the human decided.
        reason: the human's words; they are kept when the verdict is reject.

    """
    return ScriptCall("resolve", keys.used(), in_order((step, member, verdict, json.dumps(reason))), Resolved)


class SetAsideReply(NamedTuple):
    """The reply of `set_aside`."""

    result: SetAside
    next_step: StepRef | None
    """CANCELLED: first step of the job that has the session now; it must be published."""


def set_aside(
    keys: StepKeys, *, step: str, member: str, member_base: str, job: str, session: str, nonce: str, max_tries: int,
    wait_ms: int, letter: DeadLetterRecord, failure: Failure, repair_text: str,
) -> ScriptCall[SetAsideReply]:  # fmt: skip
    """Put back a step whose records can't be read. When its tries are used up, make it a dead letter.

    Args:
        keys: of the step.
        step: of the job.
        member: the step in `due` and `owed`.
        member_base: see `records.member_base`.
        job: its id.
        session: the session's id.
        nonce: of the worker's claim.
        max_tries: how often the step is put back.
        wait_ms: until it is due again.
        letter: its times are 0; the script fills them in.
        failure: why it can't be read.
        repair_text: the answer to open calls, when the job was cancelled.

    """

    def read(reply: Any) -> SetAsideReply:
        return SetAsideReply(SetAside(reply[0].decode()), first_step(session, reply[1]))

    args = in_order((
        step, member, member_base, job, session, nonce, max_tries, wait_ms, as_json(letter), as_json(failure), repair_text,
    ))  # fmt: skip
    return ScriptCall("set_aside", keys.used(), args, read)


def bury(
    keys: StepKeys, *, step: str, member_base: str, job: str, session: str, lost: str, spec: str, letter: DeadLetterRecord,
    failure: Failure, repair_text: str,
) -> ScriptCall[SetAsideReply]:  # fmt: skip
    """End a job whose records are lost. What is left is kept for a person.

    Args:
        keys: of the step.
        step: of the job.
        member_base: see `records.member_base`.
        job: its id.
        session: the session's id.
        lost: see `errors.RecordLost`.
        spec: see `records.spec`; it is used if the job's record is lost.
        letter: its times are 0; the script fills them in.
        failure: what is lost.
        repair_text: the answer to open calls, when the job was cancelled.

    """

    def read(reply: Any) -> SetAsideReply:
        return SetAsideReply(SetAside(reply[0].decode()), first_step(session, reply[1]))

    args = in_order((
        step, member_base, job, session, lost, spec, as_json(letter), as_json(failure), repair_text,
    ))  # fmt: skip
    return ScriptCall("bury", keys.used(), args, read)
