"""A repeated idempotency key: the same request returns the first job, and another request is refused."""

from __future__ import annotations

from midwatch.orchestration.errors import KeyReused, NotFound, Refused, UnreadableRecord
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.protocol.addresses import own_session_id
from midwatch.orchestration.store.new_jobs import digest_of
from midwatch.orchestration.store.operations import Operations
from midwatch.schemas.job import Job, NewJob

log = get_logger("midwatch.client")


def find_first(operations: Operations, job: NewJob) -> Job:
    """Return the first job of this key.

    Limits, priority and the agent's version are not compared: a deployment between two tries changes them. If only the
    session differs, this is logged, and the handle has the session of the first request.

    Raises:
        KeyReused: the first request had another input.

    """
    first = operations.job(job.job_id)
    if job.session_id not in (first.session_id, own_session_id(job.job_id)):
        log.warning("enqueue.other_session", job_id=job.job_id, session_id=first.session_id, named=job.session_id)
    known, given = operations.input_digest(first), digest_of(job.input)
    if known and known != given:
        raise KeyReused(job.job_id, f"{known[:12]}…", f"{given[:12]}…")
    return first


def is_known_child(operations: Operations, error: Refused, job: NewJob) -> bool:
    """Is the first job of the key a child of the same parent? Then the parent has counted it before."""
    if not isinstance(error, KeyReused) or job.parent is None:
        return False
    try:
        first = operations.job(job.job_id).parent
    except (NotFound, UnreadableRecord):
        return False
    return first is not None and first.job_id == job.parent.ref.job_id
