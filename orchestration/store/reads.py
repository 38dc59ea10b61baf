"""The part of the store that reads jobs, traces and drift counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import ResponseError

from midwatch.orchestration.errors import NotFound
from midwatch.orchestration.keyspace import KEPT_S, Keyspace
from midwatch.orchestration.protocol.reading import Listing, guard, read_list
from midwatch.orchestration.store import drift_counters
from midwatch.orchestration.store.records import job_of, session_of
from midwatch.orchestration.store.scripts import UNAVAILABLE, unavailable
from midwatch.schemas.job import Job
from midwatch.schemas.step import StepRef
from midwatch.schemas.trace import TraceRecord


def read_trace(job_id: str, reply: Sequence[bytes] | Exception) -> Listing[TraceRecord]:
    """Read the records of a job's trace. One unreadable record does not hide the others."""
    one = f"a trace record of job {job_id}"
    return read_list(reply, f"the trace of job {job_id}", one, TraceRecord.model_validate_json)


class Reads:
    """The part of `ports.Store` that reads."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self.client = client
        self.keys = keys

    def job(self, job_id: str) -> Job:
        """See `ports.Store.job`."""
        return guard(f"job {job_id}", lambda: job_of(job_id, self._read_job(job_id)))

    def _read_job(self, job_id: str) -> dict[str, str]:
        try:
            session_id = self.client.get(self.keys.job_pointer(job_id))
            flat = (
                self.client.hgetall(self.keys.job(session_of(session_id), job_id))
                if isinstance(session_id, bytes)
                else {}
            )
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        if not flat:
            raise NotFound(
                f"no job {job_id!r}: it was never enqueued here, or its retention of {KEPT_S // 86_400} days is over"
            )
        return {key.decode(): value.decode() for key, value in flat.items()}  # type: ignore[union-attr]

    def trace(self, ref: StepRef) -> list[TraceRecord]:
        """See `ports.Store.trace`."""
        try:
            reply: Any = self.client.lrange(self.keys.trace(ref.session_id, ref.job_id), 0, -1)
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        except ResponseError as error:  # the key is damaged: only the evidence of earlier tries is lost
            reply = error
        return read_trace(ref.job_id, reply)

    def drift_counters(self, hours: int) -> dict[tuple[int, str], int]:
        """See `ports.Store.drift_counters`."""
        return drift_counters.read(self.client, self.keys, hours)
