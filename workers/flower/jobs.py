"""The pages Jobs and Job, and their twins in JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tornado import web

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.job import Job, JobStatus
from midwatch.workers.flower.page import Api, Page, ask, now_ms, operations
from midwatch.workers.flower.waterfall import MOST_ROWS, Waterfall, draw
from midwatch.workers.views.job_state import describe_state

SHOWN_JOBS = 100
EVERY_ROW = 10_000


@dataclass(frozen=True)
class Filter:
    """Which jobs are listed."""

    status: JobStatus | None
    agent: str | None

    @classmethod
    def of(cls, handler: Any) -> Filter:
        """From the query string. Raises HTTPError 400 for a status that does not exist."""
        status, agent = (handler.get_argument(name, "", escape=False) for name in ("status", "agent"))
        try:
            return cls(JobStatus(status) if status else None, agent or None)
        except ValueError as error:
            raise web.HTTPError(400, f"status={status!r}: expected one of {', '.join(JobStatus)}") from error


def listing(wanted: Filter) -> tuple[list[Job], int]:
    """The newest jobs that pass, and the server's time."""
    return operations().jobs(limit=SHOWN_JOBS, status=wanted.status, agent=wanted.agent), now_ms()


def portrait(job_id: str, most_rows: int = MOST_ROWS) -> tuple[Job, Waterfall, int]:
    """One job with its waterfall. Raises NotFound."""
    job = operations().job(job_id)
    waterfall = draw(job, operations().trace(job_id), operations().messages(job.session_id), most_rows)
    return job, waterfall, now_ms()


def record(job_id: str) -> JsonObject:
    """One job with its trace. Raises NotFound."""
    job = operations().job(job_id)
    trace = [step.model_dump(mode="json", exclude_none=True) for step in operations().trace(job_id)]
    return {**plain(job, now_ms()), "output": job.output, "trace": trace}


def plain(job: Job, at_ms: int) -> JsonObject:
    """A job as JSON, with its standing in words; what it answered is told only where one job is asked for."""
    return {**job.model_dump(mode="json", exclude={"output"}), "standing": str(describe_state(job, at_ms))}


class JobsPage(Page):
    """The newest jobs."""

    @web.authenticated
    async def get(self) -> None:
        """`?status=` and `?agent=` narrow it."""
        wanted = Filter.of(self)
        jobs, at_ms = await ask(listing, wanted)
        self.show("jobs.html", jobs=jobs, at_ms=at_ms, wanted=wanted, statuses=tuple(JobStatus), most=SHOWN_JOBS)


class JobPage(Page):
    """One job: what it did, why, and how it ended."""

    @web.authenticated
    async def get(self, job_id: str) -> None:
        """`?all=1` shows every step of a long job."""
        most_rows = EVERY_ROW if self.get_argument("all", "") else MOST_ROWS
        job, waterfall, at_ms = await ask(portrait, job_id, most_rows)
        self.show("job.html", job=job, waterfall=waterfall, at_ms=at_ms)


class JobsApi(Api):
    """The newest jobs, as JSON."""

    @web.authenticated
    async def get(self) -> None:
        """`?status=` and `?agent=` narrow it."""
        jobs, at_ms = await ask(listing, Filter.of(self))
        self.write({"now_ms": at_ms, "jobs": [plain(job, at_ms) for job in jobs]})


class JobApi(Api):
    """One job, as JSON."""

    @web.authenticated
    async def get(self, job_id: str) -> None:
        """The job and its trace, without what was said."""
        self.write(await ask(record, job_id))
