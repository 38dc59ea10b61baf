"""End a job whose records are lost. Its dead letter names the lost records. The remaining records are kept."""

from __future__ import annotations

import redis

from midwatch.orchestration.errors import NotFound, RecordLost, UnreadableRecord
from midwatch.orchestration.keyspace import HELD_S, KEPT_S, Keyspace
from midwatch.orchestration.ports import Dispatcher
from midwatch.orchestration.protocol.store_replies import SetAside
from midwatch.orchestration.store.reads import Reads
from midwatch.orchestration.store.records import member_base, spec
from midwatch.orchestration.store.script_calls import put_aside
from midwatch.orchestration.store.scripts import UNAVAILABLE, Scripts, unavailable
from midwatch.orchestration.store.step_keys import step_keys
from midwatch.schemas.deadletter import DeadLetterRecord, Try
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import NewJob
from midwatch.schemas.step import StepRef

UNKNOWN = "unknown"
"""The agent's name in the record of a job whose own record is lost."""

NO_RESULT = "This call has no result: its job was cancelled, and records of it were lost."


def failure_of_loss(lost: RecordLost) -> Failure:
    """The failure of a job that has lost a record."""
    return Failure(kind=FailureKind.RECORD_LOST, detail=f"{lost}; what is left is kept, but the job can't go on")


def damage_letter(ref: StepRef, failure: Failure, *, agent: str, worker: str, attempt: int) -> DeadLetterRecord:
    """Make the dead letter of a job whose records are lost or can't be read. The script fills in the server's time."""
    return DeadLetterRecord(
        job_id=ref.job_id, session_id=ref.session_id, agent=agent, step=ref.step, kind=ref.kind, failure=failure,
        dead_ms=0, tries=(Try(at_ms=0, worker=worker, attempt=attempt, failure=failure),),
    )  # fmt: skip


def bury(
    client: redis.Redis, keys: Keyspace, dispatcher: Dispatcher, ref: StepRef, lost: RecordLost, *, worker: str
) -> SetAside:
    """End the job of this step as a dead letter that can't be replayed. A job that was to be cancelled is cancelled.

    Raises:
        StoreUnavailable: Redis can't be reached.

    """
    _restore_pointer(client, keys, ref)
    failure, agent = failure_of_loss(lost), _agent_of(client, keys, ref.job_id)
    letter = damage_letter(ref, failure, agent=agent, worker=worker, attempt=1)
    known = NewJob(
        job_id=ref.job_id, agent=agent, session_id=ref.session_id, input="lost", priority=ref.priority, agent_version="",
        max_steps=1, timeout_ms=1,
    )  # fmt: skip
    call = put_aside.bury(
        step_keys(keys, ref), step=ref.step, member_base=member_base(ref), job=ref.job_id, session=ref.session_id,
        lost=lost.what, spec=spec(known), letter=letter, failure=failure, repair_text=NO_RESULT,
    )  # fmt: skip
    reply = Scripts(client).run(call, patience_ms=1_000)
    if reply.next_step:
        dispatcher.publish((reply.next_step,))
    return reply.result


def _agent_of(client: redis.Redis, keys: Keyspace, job_id: str) -> str:
    try:
        return Reads(client, keys).job(job_id).agent
    except (NotFound, UnreadableRecord):
        return UNKNOWN


def _restore_pointer(client: redis.Redis, keys: Keyspace, ref: StepRef) -> None:
    """Let the job be found by its id, even if its pointer is lost, too."""
    try:
        client.set(keys.job_pointer(ref.job_id), ref.session_id, nx=True, ex=HELD_S + KEPT_S)
    except UNAVAILABLE as error:
        raise unavailable(error) from error
