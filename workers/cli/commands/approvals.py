"""`midwatch approvals`: list the parked steps, and approve or reject them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import connect, server_ms
from midwatch.workers.cli.exits import Exit
from midwatch.workers.cli.lazy_group import OrderedGroup
from midwatch.workers.cli.tables import Column, print_card, print_table
from midwatch.workers.views.output import document, duration, iso, print_json, say
from midwatch.workers.views.unreadable import unreadable_as_json, warn_of_unreadable

if TYPE_CHECKING:
    from midwatch.orchestration.client.client import Client
    from midwatch.schemas.job import Job
    from midwatch.schemas.message import ToolCall

MOST_PARKED = 10_000

TITLES = ("job", "step", "agent", "age", "until", "question", "call")


@click.group(cls=OrderedGroup)
def approvals() -> None:
    """Approve or reject steps that are parked for a human."""


@approvals.command("list")
@options.as_json
def list_approvals(as_json: bool) -> None:
    """List the calls that wait for a decision, with their arguments."""
    client = connect()
    parked = client.jobs.list(limit=MOST_PARKED, status="parked")
    warn_of_unreadable(parked.unreadable)
    pairs = [(job, find_parked_call(client, job)) for job in parked]
    if as_json:
        shown = [_document(job, call) for job, call in pairs]
        print_json({"approvals": shown, **unreadable_as_json(parked.unreadable)})
        return
    if not sys.stdout.isatty() or not pairs:
        now_ms = server_ms(client) if pairs else 0
        titles = [Column(title.upper()) for title in TITLES]
        print_table(titles, [_row(job, call, now_ms) for job, call in pairs], empty="nothing waits for a decision")
        return
    now_ms = server_ms(client)
    for number, (job, call) in enumerate(pairs):
        if number:
            click.echo()
        print_card(list(zip(TITLES, _row(job, call, now_ms), strict=True)))


def _row(job: Job, call: ToolCall | None, now_ms: int) -> tuple[str, ...]:
    waiting = job.waiting
    step, question = (waiting.step, waiting.reason) if waiting else ("", "")
    age = duration(now_ms - waiting.since_ms) if waiting and waiting.since_ms else ""
    until = iso(waiting.until_ms) if waiting and waiting.until_ms else ""
    return job.job_id, step, job.agent, age, until, question, f"{call.name}({call.raw_arguments})" if call else ""


def find_parked_call(client: Client, job: Job) -> ToolCall | None:
    """Find the tool call that a parked job asks about. A person must see the call before approving it."""
    from midwatch.orchestration.errors import NotFound
    from midwatch.workers.views.conversation import find_conversation

    if job.waiting is None:
        return None
    try:
        messages = client.sessions.messages(job.session_id)
    except NotFound:
        return None
    return find_conversation(job, client.jobs.trace(job.job_id), messages).calls.get(job.waiting.step)


def _document(job: Job, call: ToolCall | None) -> dict[str, Any]:
    waiting = document(job.waiting) if job.waiting else {}
    fields = {"tool": call.name, "arguments": call.raw_arguments} if call else {"tool": None, "arguments": None}
    return {"job_id": job.job_id, "session_id": job.session_id, "agent": job.agent, **waiting, **fields}


step = click.option("--step", metavar="STEP", help="The parked step, if there are several. Default: the last.")


@approvals.command("approve")
@options.job_id
@step
def approve(job_id: str, step: str | None) -> None:
    """Let the parked call of a job run."""
    handle = connect().jobs.get(job_id)
    _report(handle.approve(step), job_id, "approved: the call will run")


@approvals.command("reject")
@options.job_id
@step
@click.option("--reason", default="", help="The reason. The model reads it.")
def reject(job_id: str, step: str | None, reason: str) -> None:
    """Reject the parked call of a job. The model reads the rejection, and the job goes on."""
    handle = connect().jobs.get(job_id)
    _report(handle.reject(reason, step), job_id, "rejected: the model reads this and goes on without the call")


def _report(decided: bool, job_id: str, done: str) -> None:
    if not decided:
        say(f"job {job_id}: this step is not parked; it was decided already, or another step is parked")
        raise click.exceptions.Exit(Exit.REFUSED)
    say(f"job {job_id} is {done}")
