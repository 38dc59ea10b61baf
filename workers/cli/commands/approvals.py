"""`midwatch approvals`: what was parked until a human decides, and the decision."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import connect
from midwatch.workers.cli.exits import Exit
from midwatch.workers.cli.lazy_group import InOrder
from midwatch.workers.cli.tables import Column, print_card, print_table
from midwatch.workers.views.output import document, print_json, say

if TYPE_CHECKING:
    from midwatch.orchestration.client.client import Client
    from midwatch.schemas.job import Job
    from midwatch.schemas.message import ToolCall

MOST_PARKED = 10_000


@click.group(cls=InOrder)
def approvals() -> None:
    """Decide what was parked for a human."""


@approvals.command("list")
@options.as_json
def list_approvals(as_json: bool) -> None:
    """List what waits for a decision, with the arguments of the call in question."""
    client = connect()
    parked = client.jobs.list(limit=MOST_PARKED, status="parked")
    asked = [(job, call_in_question(client, job)) for job in parked]
    if as_json:
        print_json({"approvals": [_document(job, call) for job, call in asked]})
        return
    if not sys.stdout.isatty() or not asked:
        titles = [Column(title) for title in ("JOB", "STEP", "AGENT", "QUESTION", "CALL")]
        print_table(titles, [_row(job, call) for job, call in asked], empty="nothing waits for a decision")
        return
    for number, (job, call) in enumerate(asked):
        if number:
            click.echo()
        print_card(list(zip(("job", "step", "agent", "question", "call"), _row(job, call), strict=True)))


def _row(job: Job, call: ToolCall | None) -> tuple[str, ...]:
    step, question = (job.waiting.step, job.waiting.reason) if job.waiting else ("", "")
    return job.job_id, step, job.agent, question, f"{call.name}({call.raw_arguments})" if call else ""


def call_in_question(client: Client, job: Job) -> ToolCall | None:
    """The tool call that a parked job asks about: nobody should approve what they have not seen."""
    from midwatch.orchestration.errors import NotFound
    from midwatch.workers.views.conversation import said

    if job.waiting is None:
        return None
    try:
        messages = client.sessions.messages(job.session_id)
    except NotFound:
        return None
    return said(job, client.jobs.trace(job.job_id), messages).calls.get(job.waiting.step)


def _document(job: Job, call: ToolCall | None) -> dict[str, Any]:
    waiting = document(job.waiting) if job.waiting else {}
    asked = {"tool": call.name, "arguments": call.raw_arguments} if call else {"tool": None, "arguments": None}
    return {"job_id": job.job_id, "session_id": job.session_id, "agent": job.agent, **waiting, **asked}


step = click.option("--step", metavar="STEP", help="Which parked step, when there are several; by default the last.")


@approvals.command("approve")
@options.job_id
@step
def approve(job_id: str, step: str | None) -> None:
    """Let the parked call of a job run."""
    handle = connect().jobs.get(job_id)
    _report(handle.approve(step), job_id, "approved: the call runs")


@approvals.command("reject")
@options.job_id
@step
@click.option("--reason", default="", help="Why; the model is told.")
def reject(job_id: str, step: str | None, reason: str) -> None:
    """Refuse the parked call of a job. The model is told, and the job goes on."""
    handle = connect().jobs.get(job_id)
    _report(handle.reject(reason, step), job_id, "rejected: the model is told, and goes on without")


def _report(decided: bool, job_id: str, done: str) -> None:
    if not decided:
        say(f"job {job_id}: that step is not parked; somebody decided before, or its step is another one")
        raise click.exceptions.Exit(Exit.REFUSED)
    say(f"job {job_id} is {done}")
