"""`midwatch jobs`: list jobs, show one, follow one while it runs, and cancel one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import connect, server_ms
from midwatch.workers.cli.exits import Exit
from midwatch.workers.cli.lazy_group import OrderedGroup
from midwatch.workers.cli.tables import Column, print_card, print_table
from midwatch.workers.views.job_state import describe_question, describe_state, describe_wait, lacks_worker
from midwatch.workers.views.output import count, document, duration, iso, print_json, print_json_line, say
from midwatch.workers.views.unreadable import unreadable_as_json, warn_of_unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from midwatch.orchestration.client.client import Client
    from midwatch.schemas.job import Job
    from midwatch.workers.views.job_content import JobContent

STATUSES = ("queued", "running", "parked", "completed", "dead_lettered", "cancelled", "timed_out")


@click.group(cls=OrderedGroup)
def jobs() -> None:
    """List, show, follow and cancel jobs."""


@jobs.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs with this status.")
@click.option("--agent", metavar="PATTERN", help="Only jobs of this agent, or of a pattern such as `support-*`.")
@options.limit
@options.as_json
def list_jobs(status: str | None, agent: str | None, limit: int, as_json: bool) -> None:
    """List jobs, the newest first."""
    client = connect()
    found = client.jobs.list(limit=limit, status=status, agent=agent)
    warn_of_unreadable(found.unreadable)
    if as_json:
        print_json({"jobs": [document(job) for job in found], **unreadable_as_json(found.unreadable)})
        return
    now_ms, why = (server_ms(client), client.jobs.explain(found)) if found else (0, {})
    columns = [
        Column("JOB"),
        Column("AGENT", kind="spare"),
        Column("STATUS"),
        Column("AGE", "right"),
        Column("TURNS", "right", "spare"),
        Column("TOKENS", "right", "spare"),
        Column("WHY", kind="long"),
    ]
    rows = [
        (
            job.job_id,
            job.agent,
            job.status.value,
            duration(now_ms - job.created_ms),
            str(job.turn),
            count(job.usage.input_tokens + job.usage.output_tokens),
            explain_status(job, now_ms, why.get(job.job_id, "")),
        )
        for job in found
    ]
    given = [f"{name} {value}" for name, value in (("agent", agent), ("status", status)) if value]
    empty = f"no job fits {' and '.join(given)}" if given else "no jobs; `midwatch submit AGENT INPUT` enqueues one"
    print_table(columns, rows, empty=empty)


@jobs.command("show")
@options.job_id
@options.content
@options.as_json
def show_job(job_id: str, content: bool, as_json: bool) -> None:
    """Show one job with all its fields.

    Its input and the arguments of its failing call are shown with --content.
    """
    client = connect()
    job = client.jobs.show(job_id)
    found = read_failing_content(client, job) if content else None
    children = client.jobs.children(job_id)
    if as_json:
        shown = {"content": asdict(found)} if found else {}
        print_json({**document(job), "child_ids": children, **shown})
        return
    fields = card(job, server_ms(client), client.jobs.explain([job]).get(job_id, ""))
    print_card([*fields, *relatives(job, children), *content_card(job, found)])


@jobs.command("tail")
@options.job_id
def tail_job(job_id: str) -> None:
    """Print a job's steps as they are committed.

    Prints one line of JSON for each step until the job ends.
    """
    for record in connect().jobs.get(job_id).events(follow=True):
        print_json_line(document(record))


@jobs.command("cancel")
@options.job_id
def cancel_job(job_id: str) -> None:
    """Cancel a job.

    A running step finishes. No further step of the job starts.
    """
    client = connect()
    if client.jobs.cancel(job_id):
        say(f"job {job_id} is cancelled: no further step of it starts")
        return
    status = client.jobs.show(job_id).status
    say(f"job {job_id} had ended already: {status}")
    if status != "cancelled":
        raise click.exceptions.Exit(Exit.REFUSED)


def explain_status(job: Job, now_ms: int, why: str = "") -> str:
    """Explain the job's status: what it waits for and until when, or why it failed.

    `why` is the reason that `client.jobs.explain` found for a job whose record has none.
    """
    if job.status.ended:
        return f"{job.failure.kind}: {job.failure.detail}" if job.failure else ""
    if job.waiting is None:
        if why:
            return why
        if lacks_worker(job, now_ms):
            return str(describe_state(job, now_ms))
        return f"{job.open_calls} tool calls running" if job.open_calls > 1 else ""
    if job.status == "parked":
        return describe_question(job.waiting, now_ms)
    return str(describe_wait(job.waiting, now_ms))


def card(job: Job, now_ms: int, why: str = "") -> list[tuple[str, str]]:
    """Return the job as names and values."""
    end_ms = job.finished_ms if job.finished_ms and job.status.ended else now_ms
    usage = job.usage
    cached = f" ({count(usage.cached_tokens)} cached)" if usage.cached_tokens else ""
    calls = f"{job.tool_calls}" + (f", {job.invalid_calls} invalid ones refused" if job.invalid_calls else "")
    return [
        ("job", job.job_id),
        ("status", job.status.value),
        ("why", explain_status(job, now_ms, why)),
        ("agent", f"{job.agent} {job.agent_version}".strip()),
        ("session", job.session_id),
        ("root job", job.root_id if job.root_id != job.job_id else ""),
        ("tenant", job.tenant or ""),
        ("trace", job.traceparent or ""),
        ("priority", job.priority.value),
        ("created", iso(job.created_ms)),
        ("took", duration(end_ms - job.started_ms) if job.started_ms else ""),
        ("worked", _of_at_most(job.count_worked_ms(now_ms), job.max_worked_ms) if job.started_ms else ""),
        ("held", _of_at_most(job.count_held_ms(now_ms), job.max_held_ms)),
        ("ends by", iso(job.ends_by_ms) if job.ends_by_ms and not job.status.ended else ""),
        ("model turns", f"{job.turn} of at most {job.max_steps}"),
        ("tool calls", calls),
        ("retries", str(job.retries) if job.retries else ""),
        ("tokens", f"{count(usage.input_tokens)} in{cached}, {count(usage.output_tokens)} out"),
        ("output", job.output or ""),
    ]


def relatives(job: Job, children: Sequence[str]) -> list[tuple[str, str]]:
    """Return the ids of the job's parent and of its children."""
    parent = f"{job.parent.job_id}, step {job.parent.step}" if job.parent else ""
    counted = f"{job.children} in all, of its current turn: " if job.children > len(children) else ""
    return [("parent job", parent), ("child jobs", counted + ", ".join(children) if job.children or children else "")]


def read_failing_content(client: Client, job: Job) -> JobContent:
    """Return the job's input, and the call that failed or waits for a decision."""
    from midwatch.orchestration.errors import NotFound
    from midwatch.workers.views.job_content import read_content

    try:
        step = client.dead_letters.show(job.job_id).step if job.status == "dead_lettered" else None
    except NotFound:  # replayed or discarded a moment ago
        step = None
    return read_content(client.operations, job, step)


def content_card(job: Job, found: JobContent | None) -> list[tuple[str, str]]:
    """Return the content as names and values. Without content, say how to see it, and where the conversation is."""
    session = f"midwatch sessions show {job.session_id}"
    if found is None:
        return [("input", "hidden; --content shows it"), ("conversation", session)]
    call = f"{found.call or 'not a tool call, or no longer kept'}" if found.step else ""
    return [("input", found.input or "no longer kept"), ("called with", call), ("conversation", session)]


def _of_at_most(ms: int, most_ms: int | None) -> str:
    return duration(ms) + (f" of at most {duration(most_ms)}" if most_ms is not None else "")
