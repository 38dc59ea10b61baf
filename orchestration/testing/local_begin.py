"""How MemoryStore begins a step: refuse it, or take it under a new fence and a lease (`claim.lua`)."""

from __future__ import annotations

from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal, RowState
from midwatch.orchestration.store.redis_store import MAX_LOSSES
from midwatch.orchestration.testing.local_state import JobState, MemoryState, Row
from midwatch.orchestration.tokens.weight import weigh_all
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import UserMessage
from midwatch.schemas.step import StepKind, StepRef


def begin(state: MemoryState, ref: StepRef, nonce: str, lease_ms: int) -> Claim | ClaimRefusal:
    """See `ports.Store.claim`."""
    job = state.jobs.get(ref.job_id)
    if job is None or job.record.status.ended:
        state.settle(ref)
        return ClaimRefusal.GONE
    row = job.rows.get(ref.step)
    if job.record.status is JobStatus.QUEUED:
        if state.session(job).active != ref.job_id:
            return ClaimRefusal.NOT_YET
        row = Row() if ref.step == "1" else None
    refusal = ClaimRefusal.GONE if row is None else _refusal(job, row, nonce, state.now_ms)
    if row is None or refusal is ClaimRefusal.GONE:
        state.settle(ref)
        return ClaimRefusal.GONE
    return refusal or _take(state, job, row, ref, nonce, lease_ms)


def _refusal(job: JobState, row: Row, nonce: str, now: int) -> ClaimRefusal | None:
    """Why the step can't be taken, when it can't."""
    if row.state is RowState.DEAD or (row.state is RowState.PARKED and not job.cancel):
        return ClaimRefusal.GONE
    if row.state is RowState.STARTED and row.nonce != nonce and row.until_ms > now:
        return ClaimRefusal.BUSY
    if row.state is RowState.PENDING and row.until_ms > now and not job.cancel:
        return ClaimRefusal.EARLY
    return None


def _take(state: MemoryState, job: JobState, row: Row, ref: StepRef, nonce: str, lease_ms: int) -> Claim:
    now, session = state.now_ms, state.session(job)
    if row.state is not RowState.STARTED or row.nonce != nonce:
        if row.state is RowState.STARTED:
            row.losses += 1
            row.begun = True
        job.fence += 1
        row.fence = job.fence
    if job.record.status is JobStatus.QUEUED:
        session.groups += 1
        session.log.append(UserMessage(group=session.groups, text=job.input))
        job.update(status=JobStatus.RUNNING, started_ms=now, deadline_ms=now + job.timeout_ms)
    row.state, row.until_ms, row.nonce = RowState.STARTED, now + lease_ms, nonce
    job.rows[ref.step] = row
    state.owed.pop(ref, None)
    state.due[ref] = row.until_ms
    is_model, ending = ref.kind is StepKind.MODEL, _ending(job, row, ref, now)
    if is_model and not ending:
        job.update(turn=ref.turn)
    if job.record.status is not JobStatus.PARKED:
        job.update(waiting=None)
    log = session.conversation() if is_model else ()
    return Claim(
        ref=ref,
        fence=row.fence,
        nonce=nonce,
        now_ms=now,
        job=job.record,
        attempt=row.attempt,
        losses=row.losses,
        interrupted=row.begun,
        ending=ending,
        call=row.call,
        group=session.groups + int(is_model),
        decision=row.decision,
        log=log,
        log_weight=weigh_all(log),
        flags=frozenset(session.flags),
        memory=session.memory if is_model else None,
        anchor=session.anchor,
    )


def _ending(job: JobState, row: Row, ref: StepRef, now: int) -> str:
    """Why the job must end now, when it must."""
    if job.cancel:
        return "cancelled"
    if job.record.deadline_ms is not None and now > job.record.deadline_ms:
        return "timed_out"
    if ref.kind is StepKind.MODEL and ref.turn > job.record.max_steps:
        return "step_limit"
    return "worker_lost" if row.losses >= MAX_LOSSES else ""
