"""The part of the store that reads: jobs, their relatives and traces, counters, and poison messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import ResponseError

from midwatch.orchestration.errors import NotFound
from midwatch.orchestration.keyspace import KEPT_S, PARTITIONS, Keyspace
from midwatch.orchestration.protocol.addresses import child_id
from midwatch.orchestration.protocol.lineage import OverAncestor
from midwatch.orchestration.protocol.reading import Listing, guard, read_list
from midwatch.orchestration.store import drift_counters
from midwatch.orchestration.store.earlier_keys import move_earlier_keys
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.orchestration.store.records import job_of, session_of
from midwatch.orchestration.store.scripts import UNAVAILABLE, unread
from midwatch.schemas.deadletter import PoisonRecord
from midwatch.schemas.job import Job
from midwatch.schemas.lineage import Member
from midwatch.schemas.step import StepRef
from midwatch.schemas.trace import TraceRecord

OVER = ("status", "cancel", "discarded")
"""Fields of a job's record that show whether it is over."""

TOOL_STEP = re.compile(rb"\d+\.\d+$")
"""The field of a tool call's row."""


def read_trace(job_id: str, reply: Sequence[bytes] | Exception) -> Listing[TraceRecord]:
    """Read the records of a job's trace. One unreadable record does not hide the others."""
    one = f"a trace record of job {job_id}"
    return read_list(reply, f"the trace of job {job_id}", one, TraceRecord.model_validate_json)


def find_over(client: redis.Redis, keys: Keyspace, job: Job) -> OverAncestor | None:
    """The nearest ancestor of the job that is over, in one round trip. None if there is none.

    An ancestor whose record has expired, or can't be read, says nothing.

    Raises:
        StoreUnavailable: Redis can't be reached.

    """
    known = [one for one in job.ancestors if one.session_id is not None]
    if not known:
        return None
    for member, reply in zip(known, _read(client, keys, known), strict=True):
        how = None if isinstance(reply, Exception) else _how_it_ended(*(field and field.decode() for field in reply))
        if how:
            return OverAncestor(member.job_id, how, is_parent=member is job.ancestors[0])
    return None


def find_children(client: redis.Redis, keys: Keyspace, ref: StepRef) -> list[str]:
    """Ids of the job's children: those that calls of its current turn started, and those that producers enqueued.

    Raises:
        StoreUnavailable: Redis can't be reached.

    """
    pipe: Any = client.pipeline(transaction=False)
    pipe.hkeys(keys.steps(ref.session_id, ref.job_id))
    pipe.hget(keys.job(ref.session_id, ref.job_id), "adopted")
    fields, adopted = (
        None if isinstance(reply, Exception) else reply for reply in run_pipeline(pipe, with_errors=True)
    )
    steps = [field.decode() for field in fields or () if TOOL_STEP.match(field)]
    ids = [child_id(ref.model_copy(update={"step": step})) for step in steps]
    ids += (adopted or b"").decode().split()
    pipe = client.pipeline(transaction=False)
    for one in ids:
        pipe.exists(keys.job_pointer(one))
    return [one for one, found in zip(ids, run_pipeline(pipe, with_errors=True), strict=True) if found == 1]


def _read(client: redis.Redis, keys: Keyspace, members: Sequence[Member]) -> list[Any]:
    pipe: Any = client.pipeline(transaction=False)
    for member in members:
        pipe.hmget(keys.job(member.session_id or "", member.job_id), OVER)
    return run_pipeline(pipe, with_errors=True)


def _how_it_ended(status: str | None, cancel: str | None, discarded: str | None) -> str:
    """A dead letter may be replayed, so it is not over. A cancelled job is over before its last step notices."""
    if discarded:
        return "discarded"
    if cancel or status == "cancelled":
        return "cancelled"
    return status if status in ("completed", "timed_out") else ""


def find_newest(client: redis.Redis, keys: Keyspace, index: str, limit: int) -> list[str]:
    """The newest entries of an index of all partitions. A damaged index hides its own entries only."""
    pipe = client.pipeline(transaction=False)
    for p in range(PARTITIONS):
        pipe.zrange(keys.index(p, index), 0, limit - 1, desc=True, withscores=True)
    rows = [row for reply in run_pipeline(pipe, with_errors=True) if not isinstance(reply, Exception) for row in reply]
    return [row[0].decode() for row in sorted(rows, key=lambda row: row[1], reverse=True)[:limit]]


def read_counters(client: redis.Redis, keys: Keyspace) -> dict[str, int]:
    """The fleet's counters, summed over the partitions."""
    pipe = client.pipeline(transaction=False)
    for p in range(PARTITIONS):
        pipe.hgetall(keys.index(p, "counters"))
    total: dict[str, int] = {}
    for counters in run_pipeline(pipe):
        for name, value in counters.items():
            total[name.decode()] = total.get(name.decode(), 0) + int(value)
    return total


class Reads:
    """The part of `ports.Store` that reads."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self.client = client
        self.keys = keys

    def job(self, job_id: str) -> Job:
        """See `ports.Store.job`."""
        return guard(f"job {job_id}", lambda: job_of(job_id, self._read_job(job_id)))

    def _read_job(self, job_id: str) -> dict[str, str]:
        flat: Any = {}
        try:
            pointer = self.client.get(self.keys.job_pointer(job_id))
            if isinstance(pointer, bytes):
                session_id = session_of(pointer)
                move_earlier_keys(self.client, self.keys, session_id, job_id)
                flat = self.client.hgetall(self.keys.job(session_id, job_id))
        except UNAVAILABLE as error:
            raise unread(error) from error
        if not flat:
            raise NotFound(
                f"no job {job_id!r}: it was never enqueued here, or its retention of {KEPT_S // 86_400} days is over"
            )
        return {key.decode(): value.decode() for key, value in flat.items()}

    def over_ancestor(self, job: Job) -> OverAncestor | None:
        """See `ports.Store.over_ancestor`."""
        return find_over(self.client, self.keys, job)

    def trace(self, ref: StepRef) -> list[TraceRecord]:
        """See `ports.Store.trace`."""
        try:
            reply: Any = self.client.lrange(self.keys.trace(ref.session_id, ref.job_id), 0, -1)
        except UNAVAILABLE as error:
            raise unread(error) from error
        except ResponseError as error:  # the key is damaged: only the evidence of earlier tries is lost
            reply = error
        return read_trace(ref.job_id, reply)

    def drift_counters(self, hours: int) -> dict[tuple[int, str], int]:
        """See `ports.Store.drift_counters`."""
        return drift_counters.read(self.client, self.keys, hours)


def read_poison(client: redis.Redis, keys: Keyspace, limit: int) -> Listing[PoisonRecord]:
    """Messages that are not valid steps, the newest first."""
    pipe = client.pipeline(transaction=False)
    pipe.lrange(keys.poison(), 0, limit - 1)
    reply = run_pipeline(pipe, with_errors=True)[0]
    return read_list(reply, "the poison list", "a poison record", PoisonRecord.model_validate_json)
