"""`client.jobs`: jobs, listed, found by the beginning of an id, shown, explained and cancelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from midwatch.orchestration.client.handle import JobHandle
from midwatch.orchestration.client.why import explain_waits
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.protocol.reading import Listing
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.orchestration.store.reads import find_children, find_newest
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.trace import TraceRecord

MOST_IDS = 10_000
"""Most ids that are searched for a prefix, the newest first."""


def only_match(prefix: str, ids: Iterable[str], what: str) -> str:
    """The only id that begins with the prefix. The prefix if none does. Raises ConfigError if several do."""
    found = sorted({one for one in ids if one.startswith(prefix)})
    if len(found) > 1:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise ConfigError(f"{prefix!r} fits {len(found)} {what}: {', '.join(found[:5])}{more}; give more characters")
    return found[0] if found else prefix


class Jobs:
    """`client.jobs`: jobs, listed, shown and cancelled."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def list(self, *, limit: int = 50, status: str | None = None, agent: str | None = None) -> Listing[Job]:
        """The newest jobs first. `agent` is a name, or a pattern such as `support-*`."""
        return self._operations.jobs(limit=limit, status=JobStatus(status) if status else None, agent=agent)

    def get(self, job_id: str) -> JobHandle:
        """A handle of a job that exists. Raises NotFound."""
        job = self._operations.job(job_id)
        return JobHandle(self._operations, job.job_id, job.session_id)

    def find_id(self, prefix: str) -> str:
        """The id of the only job whose id begins with the text. The text itself if it is an id, or fits no job.

        Raises:
            ConfigError: it fits several jobs.

        """
        pipe = self._operations.client.pipeline(transaction=False)
        pipe.exists(self._operations.keys.job_pointer(prefix))
        if run_pipeline(pipe) == [1]:
            return prefix
        return only_match(prefix, find_newest(self._operations.client, self._operations.keys, "jobs", MOST_IDS), "jobs")

    def show(self, job_id: str) -> Job:
        """The record of the job. Raises NotFound."""
        return self._operations.job(job_id)

    def trace(self, job_id: str) -> Listing[TraceRecord]:
        """The committed steps of the job. Raises NotFound."""
        return self._operations.trace(job_id)

    def children(self, job_id: str) -> Sequence[str]:
        """Ids of the children that calls of the job's current turn started, and of those that producers enqueued for it."""
        job = self._operations.job(job_id)
        return find_children(self._operations.client, self._operations.keys, self._operations.first_step(job))

    def explain(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Job id -> why it does not run. Only jobs whose record does not say it are in the result."""
        return explain_waits(self._operations, jobs)

    def cancel(self, job_id: str) -> bool:
        """Cancel the job. Returns False if it had already ended."""
        return self._operations.cancel(job_id)
