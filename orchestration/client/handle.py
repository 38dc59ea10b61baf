"""JobHandle: a job as its producer holds it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from midwatch.orchestration.errors import JobTimeout, RunInsideTool
from midwatch.orchestration.tools.run import is_inside_tool
from midwatch.schemas.job import Job, JobResult, JobStatus
from midwatch.schemas.trace import TraceRecord

if TYPE_CHECKING:
    from midwatch.orchestration.client.client import Client

POLL_FIRST_S, POLL_LONGEST_S = 0.01, 0.25
"""Waiting polls: a lone step takes some 5 ms, and a quarter of a second more is nothing beside a model's answer."""


class JobHandle:
    """`id`, and what can be asked of the job from anywhere."""

    def __init__(self, client: Client, job_id: str, session_id: str, *, accepted: bool = True) -> None:
        self._client = client
        self.id = job_id
        self.session_id = session_id
        self.accepted = accepted
        """False: the job existed already (same idempotency key)."""

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    def job(self) -> Job:
        """All that is known of it."""
        return self._client.operations.job(self.id)

    def status(self) -> JobStatus:
        """Where it stands."""
        return self.job().status

    def result(self, timeout_s: float | None = None) -> JobResult:
        """Wait for the end, or until it is parked for a human.

        Raises:
            JobTimeout: `timeout_s` ran out; the job goes on.
            RunInsideTool: called inside a tool.

        """
        if is_inside_tool():
            raise RunInsideTool(
                "a tool can't wait for a job: its worker would wait for the fleet it is part of. "
                "Offer the other agent as a tool instead: tools=[other.as_tool('what it does')]"
            )
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = POLL_FIRST_S
        while True:
            job = self.job()
            if job.status.ended or job.status is JobStatus.PARKED:
                return result_of(job)
            if give_up is not None and time.monotonic() >= give_up:
                raise JobTimeout(
                    f"job {self.id} is {job.status} after {timeout_s} s; it goes on, ask again with result()"
                )
            time.sleep(pause_s)
            pause_s = min(POLL_LONGEST_S, pause_s * 1.3)

    def events(self, follow: bool = False) -> Iterator[TraceRecord]:
        """The job's steps as they were committed; with `follow`, until it ends."""
        seen = 0
        while True:
            ended = self.job().status.ended
            records = self._client.operations.trace(self.id)
            yield from records[seen:]
            seen = len(records)
            if ended or not follow:
                return
            time.sleep(POLL_LONGEST_S)

    def cancel(self) -> bool:
        """Cancel it. False: it had ended already."""
        return self._client.operations.cancel(self.id)

    def approve(self, step: str | None = None) -> bool:
        """Let a parked call run. False: somebody decided before."""
        return self._client.operations.decide(self.id, step, approve=True)

    def reject(self, reason: str = "", step: str | None = None) -> bool:
        """Refuse a parked call; the model is told why. False: somebody decided before."""
        return self._client.operations.decide(self.id, step, approve=False, reason=reason)


def result_of(job: Job) -> JobResult:
    """The job as its producer wants to know it."""
    return JobResult(
        job_id=job.job_id,
        session_id=job.session_id,
        status=job.status,
        output=job.output,
        usage=job.usage,
        steps=job.turn,
        failure=job.failure,
    )
