"""Explain why a job does not run: it waits for another job of its session, for a human, or for a worker."""

from __future__ import annotations

from collections.abc import Sequence

from midwatch.orchestration.client.presence import Presence, WorkerReport, count_slots
from midwatch.orchestration.errors import NotFound, UnreadableRecord
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.schemas.job import Job, JobStatus

NO_WORKER_MS = 1_000
"""If a step is not claimed within this time, it waits for a free worker. Until then its message is on its way."""


def explain_waits(operations: Operations, jobs: Sequence[Job]) -> dict[str, str]:
    """Return job id -> why it waits, for the jobs among these whose record does not say it. Three round trips at most.

    Raises:
        StoreUnavailable: Redis can't be reached.

    """
    idle = [job for job in jobs if is_unexplained(job)]
    if not idle:
        return {}
    presence = Presence(operations.client, operations.keys)
    pipe = operations.client.pipeline(transaction=False)
    for job in idle:
        pipe.hget(operations.keys.session(job.session_id), "active")
    active = [reply.decode() if isinstance(reply, bytes) else "" for reply in run_pipeline(pipe, with_errors=True)]
    workers, now_ms = presence.list(), presence.now_ms()
    why: dict[str, str] = {}
    holders: dict[str, str] = {}
    for job, holder in zip(idle, active, strict=True):
        if job.status is JobStatus.QUEUED and holder and holder != job.job_id:
            if holder not in holders:
                holders[holder] = _describe_holder(operations, holder)
            why[job.job_id] = holders[holder]
        elif reason := _describe_queue(job, workers, now_ms):
            why[job.job_id] = reason
    return why


def is_unexplained(job: Job) -> bool:
    """Does the job wait for something that its own record does not name?"""
    return job.status in (JobStatus.QUEUED, JobStatus.RUNNING) and job.waiting is None and not job.working


def needed_queue(job: Job) -> str:
    """Return the queue of the job's next step."""
    return "tools" if job.open_calls else "model"


def _describe_holder(operations: Operations, job_id: str) -> str:
    """Describe the job that holds the session."""
    try:
        job = operations.job(job_id)
    except (NotFound, UnreadableRecord) as error:
        return f"behind job {job_id} of its session, whose record can't be read: {error}"
    if job.status is JobStatus.DEAD_LETTERED:
        kind = f" ({job.failure.kind})" if job.failure else ""
        return f"behind the dead letter of job {job_id}{kind}: replay it with `midwatch dlq replay {job_id}`, or discard it"
    if job.status is JobStatus.PARKED:
        return f"behind job {job_id} of its session, which waits for a decision: `midwatch approvals list`"
    held = f", held by {job.waiting.downstream or job.waiting.reason}" if job.waiting else ""
    return f"behind job {job_id} of its session, which is {job.status.replace('_', ' ')}{held}"


def _describe_queue(job: Job, workers: Sequence[WorkerReport], now_ms: int) -> str:
    """Describe a lack of workers. Empty if the step can be claimed at any moment."""
    queue = needed_queue(job)
    count, slots, busy = count_slots(workers, queue)
    if not count:
        return f"no worker serves the queue `{queue}`"
    if job.held_since_ms is None or now_ms - job.held_since_ms < NO_WORKER_MS:
        return ""
    workers_that = "1 worker serves" if count == 1 else f"{count} workers serve"
    return f"waits for a free worker: {workers_that} `{queue}`, {busy} of {slots} slots are busy"
