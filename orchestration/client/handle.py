"""JobHandle: what a producer gets for a job it enqueued."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from midwatch.orchestration.client.job_result import JobResult, result_of
from midwatch.orchestration.client.patience import read_patiently
from midwatch.orchestration.client.why import explain_waits
from midwatch.orchestration.errors import JobTimeout, NotFound, RunInsideTool, StoreUnavailable
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.tools.inside import is_inside_tool
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.trace import TraceRecord

POLL_FIRST_S, POLL_LONGEST_S = 0.01, 0.25
"""`result` polls. The first interval suits a single step, which takes about 5 ms.

The longest is short compared with a model's answer.
"""


class JobHandle:
    """One job, by its id: wait for it, follow it, decide on it. Any process that reaches the fleet can hold one."""

    def __init__(self, operations: Operations, job_id: str, session_id: str, *, accepted: bool = True) -> None:
        self._operations = operations
        self.id = job_id
        self.session_id = session_id
        self.accepted = accepted
        """False if the job already existed (same idempotency key)."""

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    def job(self) -> Job:
        """The record of the job.

        Raises:
            NotFound: it is gone: Redis has lost its data, or the retention is over.
            StoreUnavailable: Redis can't be reached.

        """
        try:
            return self._operations.job(self.id)
        except NotFound:
            return self._operations.find_job(self.id, self.session_id)

    def status(self) -> JobStatus:
        """The job's current status."""
        return self.job().status

    def result(self, timeout_s: float | None = None) -> JobResult:
        """Wait until the job ends or is parked for a human. While Redis can't be reached, the wait goes on.

        Raises:
            JobTimeout: `timeout_s` ran out. The job goes on.
            NotFound: the record of the job is gone.
            StoreUnavailable: without a `timeout_s`, Redis could not be reached for a minute. The job goes on.
            RunInsideTool: `result` was called inside a tool.

        """
        if is_inside_tool():
            raise RunInsideTool(
                "a tool can't wait for a job: its worker would wait for the fleet to which it belongs. "
                "Offer the other agent as a tool instead: tools=[other.as_tool('what it does')]"
            )
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = POLL_FIRST_S
        while True:
            job = self._read_job(deadline, timeout_s)
            if job.status.ended or job.status is JobStatus.PARKED:
                return result_of(job)
            if deadline is not None and time.monotonic() >= deadline:
                raise JobTimeout(
                    f"job {self.id} is {job.status} after {timeout_s} s{self._explain(job)}; it goes on, so call result() again"
                )
            time.sleep(pause_s)
            pause_s = min(POLL_LONGEST_S, pause_s * 1.3)

    def _explain(self, job: Job) -> str:
        """Say why the job has not ended, if that is known."""
        if job.waiting is not None:
            holder = f"held by {job.waiting.downstream}: " if job.waiting.downstream else ""
            return f": {holder}{job.waiting.reason}"
        with suppress(StoreUnavailable):
            why = explain_waits(self._operations, [job]).get(job.job_id)
            return f": {why}" if why else ""
        return ""

    def _read_job(self, deadline_s: float | None, timeout_s: float | None) -> Job:
        """Read the record. Wait for a server that restarts, as long as the caller does."""
        try:
            return read_patiently(self.job, give_up_s=deadline_s)
        except StoreUnavailable as error:
            if timeout_s is None:
                raise
            raise JobTimeout(
                f"the state of job {self.id} is not known after {timeout_s} s, because Redis does not answer; "
                f"the job goes on when it does, so call result() again ({error})"
            ) from error

    def events(self, follow: bool = False) -> Iterator[TraceRecord]:
        """The job's committed steps. With `follow`, wait for new ones until the job ends, and for a server that restarts."""
        seen = 0
        while True:
            job, records = read_patiently(self._look) if follow else self._look()
            yield from records[seen:]
            seen = len(records)
            if job.status.ended or not follow:
                return
            time.sleep(POLL_LONGEST_S)

    def _look(self) -> tuple[Job, list[TraceRecord]]:
        """Read the record before the trace: if the record says that the job has ended, the trace is complete."""
        return self.job(), self._operations.trace(self.id)

    def cancel(self) -> bool:
        """Cancel the job. Returns False if it had already ended."""
        return self._operations.cancel(self.id)

    def approve(self, step: str | None = None) -> bool:
        """Let a parked call run. Returns False if it was already decided."""
        return self._operations.decide(self.id, step, approve=True)

    def reject(self, reason: str = "", step: str | None = None) -> bool:
        """Refuse a parked call. The reason is returned to the model. Returns False if it was already decided."""
        return self._operations.decide(self.id, step, approve=False, reason=reason)
