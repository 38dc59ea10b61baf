"""What the store only keeps and gives back: jobs as they stand, traces, large results."""

from __future__ import annotations

import redis

from orchestration.errors import NotFound
from orchestration.keyspace import KEPT_S, Keyspace
from orchestration.store import driftcounters
from orchestration.store.records import job_of
from orchestration.store.scripts import UNAVAILABLE, unavailable
from schemas.job import Job
from schemas.step import StepRef
from schemas.trace import TraceRecord


class Shelf:
    """The reading part of `ports.Store`."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self.client = client
        self.keys = keys

    def job(self, job_id: str) -> Job:
        """See `ports.Store.job`."""
        return job_of(job_id, self._read_job(job_id))

    def _read_job(self, job_id: str) -> dict[str, str]:
        try:
            session_id = self.client.get(self.keys.job_pointer(job_id))
            flat = (
                self.client.hgetall(self.keys.job(session_id.decode(), job_id)) if isinstance(session_id, bytes) else {}
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
            raw = self.client.lrange(self.keys.trace(ref.session_id, ref.job_id), 0, -1)
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        return [TraceRecord.model_validate_json(record) for record in raw]

    def drift_counters(self, hours: int) -> dict[tuple[int, str], int]:
        """See `ports.Store.drift_counters`."""
        return driftcounters.read(self.client, self.keys, hours)

    def put_result(self, session_id: str, handle: str, body: bytes) -> None:
        """See `ports.Store.put_result`."""
        key = self.keys.results(session_id)
        try:
            pipe = self.client.pipeline(transaction=True)
            pipe.hset(key, handle, body)
            pipe.expire(key, KEPT_S)
            pipe.hset(self.keys.session(session_id), "flags", "results")
            pipe.execute()
        except UNAVAILABLE as error:
            raise unavailable(error) from error

    def get_result(self, session_id: str, handle: str) -> bytes | None:
        """See `ports.Store.get_result`."""
        try:
            return self.client.hget(self.keys.results(session_id), handle)  # type: ignore[return-value]
        except UNAVAILABLE as error:
            raise unavailable(error) from error
