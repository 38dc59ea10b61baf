"""Script calls at the beginning of work: enqueue a job, claim a step, renew its lease, set the job's limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from midwatch.orchestration.errors import RecordLost
from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.store_replies import LeaseState
from midwatch.orchestration.store.conversation.log_cache import Held
from midwatch.orchestration.store.decisions import read_decision
from midwatch.orchestration.store.records import fields, job_of
from midwatch.orchestration.store.script_calls.script_call import ScriptCall, as_json, in_order, or_empty
from midwatch.orchestration.store.step_keys import StepKeys
from midwatch.schemas.decision import HumanDecision
from midwatch.schemas.job import Job, JobInput, SessionPolicy
from midwatch.schemas.lineage import Bounds
from midwatch.schemas.loss import Loss
from midwatch.schemas.message import ToolCall
from midwatch.schemas.step import Priority, StepKind, StepRef

MAX_LOSSES = 50
"""How many claims of a step may lose their worker without proof before the step becomes a dead letter. Usually workers were
killed from outside, and the step was not the cause. Losses with a proven cause are counted separately: see
`steps.losses.suspects`."""

MAX_LOSSES_ALONE = 10
"""How many of them the step may have while it runs alone: it may be a step that kills its worker, too."""


class EnqueueResult(StrEnum):
    """The result of `enqueue`."""

    EXISTS = "exists"
    """Nothing was recorded: a job of this id exists."""
    BUSY = "busy"
    """Nothing was recorded: the session runs another job, and `on_busy` is reject."""
    STARTED = "started"
    """The job has the session, and its first step is owed."""
    QUEUED = "queued"
    """The job waits for the session."""


class EnqueueReply(NamedTuple):
    """The reply of `enqueue`."""

    result: EnqueueResult
    active_job: str
    """The job that has the session, when the result is BUSY or QUEUED; else ''."""


class ClaimReply(NamedTuple):
    """The reply of `claim` when the step was taken. See `protocol.claims.Claim`."""

    now_ms: int
    fence: int
    attempt: int
    losses: int
    interrupted: bool
    ending: str
    decision: HumanDecision | None
    groups: int
    """Number of groups of the session."""
    call: ToolCall | None
    flags: frozenset[str]
    epoch: int
    first_entry: int
    """Index of the first of `entries` in the log. 0 if the caller's copy does not match the log."""
    entries: list[bytes]
    """Entries of the log from `first_entry` on. Empty for a tool step."""
    job: Job
    anchor: Anchor | None
    memory: bytes
    """The memory as JSON. Empty if there is none, or if the caller's copy is of the same epoch."""
    loss_records: tuple[Loss, ...]

    def as_claim(self, ref: StepRef, nonce: str, held: Held) -> Claim:
        """Make the claim, with the conversation from the caller's cache."""
        return Claim(
            ref=ref,
            fence=self.fence,
            nonce=nonce,
            now_ms=self.now_ms,
            job=self.job,
            attempt=self.attempt,
            losses=self.losses,
            interrupted=self.interrupted,
            ending=self.ending,
            call=self.call,
            group=self.groups + (1 if ref.kind is StepKind.MODEL else 0),
            decision=self.decision,
            log=held.messages,
            log_weight=held.weight,
            memory=held.memory,
            anchor=self.anchor,
            flags=self.flags,
            loss_records=self.loss_records,
        )


def enqueue(
    keys: Sequence[str], *, job: str, session: str, priority: Priority, spec: str, input: JobInput, digest: str, max_steps: int,
    timeout_ms: int, max_wait_ms: int | None, max_total_ms: int | None, on_busy: SessionPolicy, message: bytes, tenant: str,
    places: int,
) -> ScriptCall[EnqueueReply]:  # fmt: skip
    """Record a job. Mark its first step as owed, or let the job wait if the session has an active one.

    Args:
        keys: of the job's first step; then the backlog and its tenants, if the step may have to wait there.
        job: its id.
        session: the session's id.
        priority: of all its steps.
        spec: see `records.spec`.
        input: the text of its input.
        digest: of its input.
        max_steps: the most model turns.
        timeout_ms: of the job's own work, from the first claim on.
        max_wait_ms: how long others may hold the job in all.
        max_total_ms: from now to its end.
        on_busy: what happens while the session runs another job.
        message: of the first step, for the model queue; b'' without hand-off.
        tenant: of the job, or ''.
        places: how many first steps the queue holds before others wait in the backlog.

    """
    args = in_order(
        (
            job, session, priority, spec, json.dumps(input, ensure_ascii=False), digest, max_steps, timeout_ms,
            or_empty(max_wait_ms), or_empty(max_total_ms), on_busy, message, tenant, places,
        )
    )  # fmt: skip

    def read(reply: Any) -> EnqueueReply:
        result, *active_job = (word.decode() for word in reply)
        return EnqueueReply(EnqueueResult(result), "".join(active_job))

    return ScriptCall("enqueue", keys, args, read)


def claim(
    keys: StepKeys, *, job: str, step: str, nonce: str, lease_ms: int, max_losses: int, max_alone: int, member: str,
    known_epoch: int, known_length: int, known_digest: str,
) -> ScriptCall[ClaimReply | ClaimRefusal]:  # fmt: skip
    """Claim a step, or return why the claim is refused. The reply raises RecordLost if a record that the step needs is gone.

    Args:
        keys: of the step.
        job: its id.
        step: of the job.
        nonce: of this claim; the same nonce again gets the same claim.
        lease_ms: how long the claim holds without renewal.
        max_losses: losses without proof, after which the job ends.
        max_alone: those of them that the step had while it ran alone.
        member: the step in `due` and `owed`.
        known_epoch: of the caller's copy of the log; -1 when it has none.
        known_length: of the copy, in entries.
        known_digest: SHA-1 of the copy's last entry, in hex.

    """
    args = in_order(
        (job, step, nonce, lease_ms, max_losses, max_alone, member, known_epoch, known_length, known_digest)
    )

    def read(reply: Any) -> ClaimReply | ClaimRefusal:
        if reply[0] == b"lost":
            raise RecordLost(reply[1].decode())
        if reply[0] != b"claimed":
            return ClaimRefusal(reply[0].decode())
        (
            now_ms, fence, attempt, losses, interrupted, ending, decision, groups, call, flags, epoch, first_entry, entries,
            hashed, anchor, memory, lost_claims,
        ) = reply[1:]  # fmt: skip
        return ClaimReply(
            now_ms=now_ms,
            fence=int(fence),
            attempt=attempt,
            losses=losses,
            interrupted=bool(interrupted),
            ending=ending.decode(),
            decision=read_decision(decision.decode()),
            groups=groups,
            call=ToolCall.model_validate_json(call) if call else None,
            flags=frozenset(flags.decode().split(",")) if flags else frozenset(),
            epoch=int(epoch),
            first_entry=first_entry,
            entries=entries,
            job=job_of(job, fields(hashed)),
            anchor=Anchor.read(anchor.decode()),
            memory=memory,
            loss_records=tuple(Loss.model_validate_json(line) for line in lost_claims.splitlines()),
        )

    return ScriptCall("claim", keys.used(), args, read)


def renew(keys: StepKeys, *, step: str, fence: int, lease_ms: int, member: str) -> ScriptCall[LeaseState]:
    """Extend the lease of a claimed step to `lease_ms` from now."""
    args = in_order((step, fence, lease_ms, member))
    return ScriptCall("renew", keys.used(), args, lambda reply: LeaseState(reply.decode()))


def set_limits(
    keys: StepKeys, *, step: str, fence: int, agent_version: str, max_steps: int, bounds: Bounds, timeout_ms: int,
    max_wait_ms: int | None, max_total_ms: int | None,
) -> ScriptCall[bool]:  # fmt: skip
    """Give a job that was enqueued by name its agent's version and limits. Returns False if the claim is not valid."""
    args = in_order((
        step, fence, agent_version, max_steps, as_json(bounds), timeout_ms, or_empty(max_wait_ms), or_empty(max_total_ms),
    ))  # fmt: skip
    return ScriptCall("set_limits", keys.used(), args, bool)
