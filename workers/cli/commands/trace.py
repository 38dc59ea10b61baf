"""`midwatch trace`: the waterfall of a job on the terminal, with the reason for each step and the totals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.commands.jobs import content_card, explain_status, read_failing_content, relatives
from midwatch.workers.cli.environment import connect, server_ms
from midwatch.workers.cli.tables import STYLES, Column, console, lay_out, print_card, print_lines
from midwatch.workers.views.output import count, document, duration, pluralize, print_json, printable
from midwatch.workers.views.unreadable import unreadable_as_json, warn_of_unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from midwatch.schemas.job import Job
    from midwatch.schemas.model import Usage
    from midwatch.workers.views.waterfall import Row

TABLE = (
    Column("AT", "right"),
    Column(""),
    Column("STEP"),
    Column("WHAT"),
    Column("TRY", "right"),
    Column("TOOK", "right"),
    Column("OUTCOME"),
    Column("IN / OUT", "right", "spare"),
    Column("WHY", kind="long"),
)

MOST_NAME_CHARS = 26


@click.command()
@options.job_id
@options.content
@options.as_json
def trace(job_id: str, content: bool, as_json: bool) -> None:
    """Show what a job did, step by step, and why.

    Bars are work and dots are waiting. Long waits are shortened. --content adds the input and the arguments of the failing call.
    """
    from midwatch.orchestration.errors import NotFound
    from midwatch.workers.views.conversation import JobConversation, find_conversation
    from midwatch.workers.views.waterfall import make_rows

    client = connect()
    job = client.jobs.show(job_id)
    records = client.jobs.trace(job_id)
    try:
        messages = client.sessions.messages(job.session_id)
        conversation, unreadable = find_conversation(job, records, messages), messages.unreadable
    except NotFound:  # the session has no message yet
        conversation, unreadable = JobConversation(), []
    unreadable = [*records.unreadable, *unreadable]
    warn_of_unreadable(unreadable)
    found = make_rows(job, records, conversation)
    if as_json:
        print_json(
            {"job": document(job), "steps": [_document(job, row) for row in found], **unreadable_as_json(unreadable)}
        )
        return
    screen = console()
    print_lines(screen, draw(found, screen.width, ascii_only=screen.options.ascii_only))
    for line in totals(job, found, server_ms(client), client.jobs.explain([job]).get(job_id, "")):
        screen.print(line)
    children = client.jobs.children(job_id)
    shown = [*relatives(job, children), *(content_card(job, read_failing_content(client, job)) if content else [])]
    print_card(shown)


def _document(job: Job, row: Row) -> dict[str, Any]:
    from midwatch.workers.views.output import iso

    return {
        "step": row.step,
        "kind": row.kind.value,
        "what": row.what,
        "attempt": row.attempt,
        "outcome": row.outcome,
        "started_at": iso(job.created_ms + row.offset_ms),
        "offset_ms": row.offset_ms,
        "took_ms": row.took_ms,
        "waited_ms": row.waited_ms,
        "usage": row.usage.model_dump(mode="json") if row.usage else None,
        "why": row.reason,
    }


def draw(found: Sequence[Row], width: int, *, ascii_only: bool = False) -> list[Text]:
    """Draw the waterfall as lines that fit a terminal of `width` columns."""
    from midwatch.workers.views.waterfall import Timeline

    columns = max(8, min(30, width // 6))
    work, wait = ("#", ".") if ascii_only else ("█", "·")
    line = Timeline([(row.offset_ms, row.offset_ms + row.took_ms) for row in found], columns)
    bars = [line.bar(row, columns, work=work, wait=wait) for row in found]
    return lay_out(TABLE, [_cells(row, bar) for row, bar in zip(found, bars, strict=True)], width) if found else []


def _cells(row: Row, bar: str) -> tuple[str | Text, ...]:
    from rich.text import Text

    usage = row.usage
    colour = STYLES.get(row.outcome) if row.outcome not in ("continue", "complete") else ""
    return (
        duration(row.offset_ms),
        Text(bar, colour or ("cyan" if row.kind == "model" else "blue")),
        row.step,
        printable(row.what, MOST_NAME_CHARS),
        str(row.attempt) if row.attempt > 1 else "",
        duration(row.took_ms),
        row.outcome,
        _show_tokens(usage) if usage else "",
        Text(printable(row.reason), "dim"),
    )


def _show_tokens(usage: Usage) -> str:
    # Zeros would look like the provider's counts, which were impossible.
    return "? / ?" if usage.impossible else f"{count(usage.input_tokens)} / {count(usage.output_tokens)}"


def totals(job: Job, found: Sequence[Row], now_ms: int, why: str = "") -> list[Text]:
    """Return the lines with the job's status, its time and its tokens."""
    from rich.text import Text

    end_ms = job.finished_ms if job.finished_ms and job.status.ended else now_ms
    by_kind = {kind: sum(row.took_ms for row in found if row.kind == kind) for kind in ("model", "tool")}
    usage = job.usage
    cached = f" ({count(usage.cached_tokens)} cached)" if usage.cached_tokens else ""
    facts = [
        duration(end_ms - job.created_ms),
        f"{pluralize(job.turn, 'model turn')} in {duration(by_kind['model'])}",
        f"{pluralize(job.tool_calls, 'tool call')} in {duration(by_kind['tool'])}" if job.tool_calls else "",
        f"{pluralize(job.invalid_calls, 'invalid call')} refused" if job.invalid_calls else "",
        pluralize(job.retries, "retry", "retries") if job.retries else "",
        f"worked {duration(job.count_worked_ms(now_ms))}" if job.started_ms else "",
        f"held {duration(job.count_held_ms(now_ms))}",
        f"{count(usage.input_tokens)} tokens in{cached}, {count(usage.output_tokens)} out",
    ]
    summary = Text(job.status.value, STYLES.get(job.status.value, ""))
    summary.append(" · " + " · ".join(filter(None, facts)), "default")
    lines = [Text(), summary] if found else [summary]
    reason = explain_status(job, now_ms, why)
    if reason:
        lines.append(Text(printable(reason)))
    if job.status == "dead_lettered":
        lines.append(Text(f"`midwatch dlq replay {job.job_id}` tries it again where it stopped", "dim"))
    return lines
