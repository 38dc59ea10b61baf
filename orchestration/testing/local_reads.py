"""What the store without a server only keeps and gives back: jobs as they stand, traces, large results, counters."""

from __future__ import annotations

from midwatch.orchestration.testing.local_state import MemoryState
from midwatch.schemas.job import Job
from midwatch.schemas.step import StepRef
from midwatch.schemas.trace import TraceRecord


class MemoryShelf:
    """The reading part of `ports.Store`."""

    state: MemoryState
    originals_bytes: int

    def job(self, job_id: str) -> Job:
        """See `ports.Store.job`."""
        return self.state.job(job_id).record

    def trace(self, ref: StepRef) -> list[TraceRecord]:
        """See `ports.Store.trace`."""
        return list(self.state.job(ref.job_id).trace)

    def drift_counters(self, hours: int) -> dict[tuple[int, str], int]:
        """See `ports.Store.drift_counters`. This store's hour has no end."""
        return {(0, name): count for name, count in self.state.drift.items()}

    def put_result(self, session_id: str, handle: str, body: bytes) -> None:
        """See `ports.Store.put_result`."""
        session = self.state.sessions[session_id]
        session.keep("results", handle, body)
        session.bound_originals(self.originals_bytes)
        session.flags.add("results")

    def get_result(self, session_id: str, handle: str) -> bytes | None:
        """See `ports.Store.get_result`."""
        return self.state.sessions[session_id].originals.get(("results", handle))
