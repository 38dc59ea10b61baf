"""The pages Jobs and Job, and the JSON API for the same data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tornado import web

from midwatch.orchestration.client.why import explain_waits
from midwatch.orchestration.errors import NotFound
from midwatch.orchestration.protocol.reading import Listing
from midwatch.orchestration.store.reads import find_children
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.job import Job, JobStatus
from midwatch.workers.flower.page import Api, Page, now_ms, operations, run_query
from midwatch.workers.flower.waterfall import MOST_ROWS, draw
from midwatch.workers.views.job_content import read_content
from midwatch.workers.views.job_state import describe_state
from midwatch.workers.views.unreadable import summarize_unreadable, unreadable_as_json

SHOWN_JOBS = 100
EVERY_ROW = 10_000


@dataclass(frozen=True)
class Filter:
    """The filter of the list of jobs."""

    status: JobStatus | None
    agent: str | None

    @classmethod
    def from_query(cls, handler: Any) -> Filter:
        """Read the filter from the query string. Raises HTTPError 400 for an unknown status."""
        status, agent = (handler.get_argument(name, "", escape=False) for name in ("status", "agent"))
        try:
            return cls(JobStatus(status) if status else None, agent or None)
        except ValueError as error:
            raise web.HTTPError(400, f"status={status!r}: expected one of {', '.join(JobStatus)}") from error


def list_jobs(wanted: Filter) -> tuple[Listing[Job], int, dict[str, str]]:
    """Return the newest jobs that match, the server's time, and the reasons of waiting jobs without a recorded reason."""
    found = operations().jobs(limit=SHOWN_JOBS, status=wanted.status, agent=wanted.agent)
    return found, now_ms(), explain_waits(operations(), found)


def read_job(job_id: str, most_rows: int = MOST_ROWS, *, with_content: bool = False) -> dict[str, Any]:
    """Return what the page of one job shows: the job, its waterfall, its children, why it waits, its content if wanted.

    Raises:
        NotFound: there is no such job.

    """
    job = operations().job(job_id)
    trace, messages = operations().trace(job_id), operations().messages(job.session_id)
    return {
        "job": job,
        "waterfall": draw(job, trace, messages, most_rows),
        "unreadable": summarize_unreadable([*trace.unreadable, *messages.unreadable]),
        "at_ms": now_ms(),
        "why": explain_waits(operations(), [job]).get(job_id, ""),
        "children": find_children(operations().client, operations().keys, operations().first_step(job)),
        "content": read_content(operations(), job, _failing_step(job)) if with_content else None,
    }


def _failing_step(job: Job) -> str | None:
    if job.status is not JobStatus.DEAD_LETTERED:
        return None
    try:
        return operations().dead_letter(job.job_id).step
    except NotFound:  # replayed or discarded a moment ago
        return None


def read_trace(job_id: str) -> JsonObject:
    """Return one job with its trace, as JSON. Raises NotFound."""
    job = operations().job(job_id)
    found = operations().trace(job_id)
    trace = [step.model_dump(mode="json", exclude_none=True) for step in found]
    why = explain_waits(operations(), [job]).get(job_id, "")
    shown = {**job_as_json(job, now_ms(), why), "output": job.output, "trace": trace}
    return {**shown, **unreadable_as_json(found.unreadable)}


def job_as_json(job: Job, at_ms: int, why: str = "") -> JsonObject:
    """Return a job as JSON with its state in words, without its output."""
    return {**job.model_dump(mode="json", exclude={"output"}), "standing": str(describe_state(job, at_ms, why))}


class JobsPage(Page):
    """The newest jobs."""

    @web.authenticated
    async def get(self) -> None:
        """Show the jobs. `?status=` and `?agent=` filter them."""
        wanted = Filter.from_query(self)
        jobs, at_ms, why = await run_query(list_jobs, wanted)
        self.show(
            "jobs.html",
            unreadable=summarize_unreadable(jobs.unreadable),
            jobs=jobs,
            at_ms=at_ms,
            why=why,
            wanted=wanted,
            statuses=tuple(JobStatus),
            most=SHOWN_JOBS,
        )


class JobPage(Page):
    """One job: its steps with their reasons, and its end."""

    @web.authenticated
    async def get(self, job_id: str) -> None:
        """Show one job. `?all=1` shows every step of a long job, `?content=1` its input and its failing call."""
        most_rows = EVERY_ROW if self.get_argument("all", "") else MOST_ROWS
        with_content = bool(self.get_argument("content", ""))
        self.show("job.html", **await run_query(read_job, job_id, most_rows, with_content=with_content))


class JobsApi(Api):
    """The newest jobs, as JSON."""

    @web.authenticated
    async def get(self) -> None:
        """Return the jobs. `?status=` and `?agent=` filter them."""
        jobs, at_ms, why = await run_query(list_jobs, Filter.from_query(self))
        shown = [job_as_json(job, at_ms, why.get(job.job_id, "")) for job in jobs]
        self.write({"now_ms": at_ms, "jobs": shown, **unreadable_as_json(jobs.unreadable)})


class JobApi(Api):
    """One job, as JSON."""

    @web.authenticated
    async def get(self, job_id: str) -> None:
        """Return the job and its trace, without the conversation."""
        self.write(await run_query(read_trace, job_id))
