"""The pages Jobs and Job, and the JSON API for the same data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tornado import web

from midwatch.orchestration.protocol.reading import Listing
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.job import Job, JobStatus
from midwatch.workers.flower.page import Api, Page, now_ms, operations, run_query
from midwatch.workers.flower.waterfall import MOST_ROWS, Waterfall, draw
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


def list_jobs(wanted: Filter) -> tuple[Listing[Job], int]:
    """Return the newest jobs that match, and the server's time."""
    return operations().jobs(limit=SHOWN_JOBS, status=wanted.status, agent=wanted.agent), now_ms()


def read_job(job_id: str, most_rows: int = MOST_ROWS) -> tuple[Job, Waterfall, str, int]:
    """Return one job, its waterfall, a line about records that can't be read, and the server's time. Raises NotFound."""
    job = operations().job(job_id)
    trace, messages = operations().trace(job_id), operations().messages(job.session_id)
    unreadable = summarize_unreadable([*trace.unreadable, *messages.unreadable])
    return job, draw(job, trace, messages, most_rows), unreadable, now_ms()


def read_trace(job_id: str) -> JsonObject:
    """Return one job with its trace, as JSON. Raises NotFound."""
    job = operations().job(job_id)
    found = operations().trace(job_id)
    trace = [step.model_dump(mode="json", exclude_none=True) for step in found]
    return {
        **job_as_json(job, now_ms()), "output": job.output, "trace": trace, **unreadable_as_json(found.unreadable),
    }  # fmt: skip


def job_as_json(job: Job, at_ms: int) -> JsonObject:
    """Return a job as JSON with its state in words, without its output."""
    return {**job.model_dump(mode="json", exclude={"output"}), "standing": str(describe_state(job, at_ms))}


class JobsPage(Page):
    """The newest jobs."""

    @web.authenticated
    async def get(self) -> None:
        """Show the jobs. `?status=` and `?agent=` filter them."""
        wanted = Filter.from_query(self)
        jobs, at_ms = await run_query(list_jobs, wanted)
        self.show(
            "jobs.html",
            unreadable=summarize_unreadable(jobs.unreadable),
            jobs=jobs,
            at_ms=at_ms,
            wanted=wanted,
            statuses=tuple(JobStatus),
            most=SHOWN_JOBS,
        )


class JobPage(Page):
    """One job: its steps with their reasons, and its end."""

    @web.authenticated
    async def get(self, job_id: str) -> None:
        """Show one job. `?all=1` shows every step of a long job."""
        most_rows = EVERY_ROW if self.get_argument("all", "") else MOST_ROWS
        job, waterfall, unreadable, at_ms = await run_query(read_job, job_id, most_rows)
        self.show("job.html", job=job, waterfall=waterfall, unreadable=unreadable, at_ms=at_ms)


class JobsApi(Api):
    """The newest jobs, as JSON."""

    @web.authenticated
    async def get(self) -> None:
        """Return the jobs. `?status=` and `?agent=` filter them."""
        jobs, at_ms = await run_query(list_jobs, Filter.from_query(self))
        shown = [job_as_json(job, at_ms) for job in jobs]
        self.write({"now_ms": at_ms, "jobs": shown, **unreadable_as_json(jobs.unreadable)})


class JobApi(Api):
    """One job, as JSON."""

    @web.authenticated
    async def get(self, job_id: str) -> None:
        """Return the job and its trace, without the conversation."""
        self.write(await run_query(read_trace, job_id))
