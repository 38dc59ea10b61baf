"""`midwatch trace`: the waterfall of a job on the terminal, each step with its why, and the totals below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from workers.cli import options
from workers.cli.environment import connect, server_ms
from workers.cli.jobs import why as why_of_job
from workers.cli.output import count, document, duration, print_json, printable
from workers.cli.tables import STYLES, console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from schemas.job import Job
    from workers.cli.waterfall import Row

ROOM_FOR_WHY = 32
"""Columns that must be left for the reason on the step's own line; with fewer it gets the line below."""


@click.command()
@options.job_id
@options.as_json
def trace(job_id: str, as_json: bool) -> None:
    """Show what a job did, step by step, and why.

    Bars are work, dots are waiting. Stretches in which nothing ran are cut short.
    """
    from orchestration.errors import NotFound
    from workers.cli.said import Said, said
    from workers.cli.waterfall import rows

    client = connect()
    job = client.jobs.show(job_id)
    records = client.jobs.trace(job_id)
    try:
        spoken = said(job, records, client.sessions.messages(job.session_id))
    except NotFound:  # nothing was said yet
        spoken = Said()
    found = rows(job, records, spoken)
    if as_json:
        print_json({"job": document(job), "steps": [_document(job, row) for row in found]})
        return
    screen = console()
    for line in draw(found, screen.width, ascii_only=screen.options.ascii_only):
        screen.print(line, no_wrap=True, overflow="ellipsis", soft_wrap=False)
    for line in totals(job, found, server_ms(client)):
        screen.print(line)


def _document(job: Job, row: Row) -> dict[str, Any]:
    from workers.cli.output import iso

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
        "why": row.why,
    }


def draw(found: Sequence[Row], width: int, *, ascii_only: bool = False) -> list[Text]:
    """The lines of the waterfall, fitted to a terminal."""
    from rich.text import Text

    from workers.cli.waterfall import Timeline

    if not found:
        return []
    columns = max(8, min(30, width // 6))
    work, wait = ("#", ".") if ascii_only else ("█", "·")
    line = Timeline([(row.offset_ms, row.offset_ms + row.took_ms) for row in found], columns)
    bars = [line.bar(row, columns, work=work, wait=wait) for row in found]
    table = [
        ("AT", "", "STEP", "WHAT", "TRY", "TOOK", "OUTCOME", "IN / OUT"),
        *(_cells(row, bar) for row, bar in zip(found, bars, strict=True)),
    ]
    widths = [max(len(cells[place]) for cells in table) for place in range(len(table[0]))]
    room = width - sum(widths) - 2 * len(widths)
    lines = [_line(table[0], widths, "bold", "WHY" if room >= ROOM_FOR_WHY else "", room)]
    for cells, row in zip(table[1:], found, strict=True):
        reason = printable(row.why)
        lines.append(_line(cells, widths, STYLES.get(row.outcome, ""), reason if room >= ROOM_FOR_WHY else "", room))
        if reason and room < ROOM_FOR_WHY:
            lines.append(Text(" " * (widths[0] + 2) + printable(reason, max(20, width - widths[0] - 2)), "dim"))
    return lines


def _cells(row: Row, bar: str) -> tuple[str, ...]:
    usage = row.usage
    return (
        duration(row.offset_ms),
        bar,
        row.step,
        printable(row.what, 26),
        str(row.attempt) if row.attempt > 1 else "",
        duration(row.took_ms),
        row.outcome,
        f"{count(usage.input_tokens)} / {count(usage.output_tokens)}" if usage else "",
    )


def _line(cells: Sequence[str], widths: Sequence[int], style: str, reason: str, room: int) -> Text:
    from rich.text import Text

    right = (True, False, False, False, True, True, False, True)
    line = Text()
    for place, cell in enumerate(cells):
        padded = cell.rjust(widths[place]) if right[place] else cell.ljust(widths[place])
        styled = style if place in (1, 6) or style == "bold" else ""
        line.append(padded, styled)
        line.append("  ")
    line.append(printable(reason, max(room, 1)), "bold" if style == "bold" else "dim")
    line.rstrip()
    return line


def totals(job: Job, found: Sequence[Row], now_ms: int) -> list[Text]:
    """How the job stands, and what it took."""
    from rich.text import Text

    end_ms = job.finished_ms if job.finished_ms and job.status.ended else now_ms
    by_kind = {kind: sum(row.took_ms for row in found if row.kind == kind) for kind in ("model", "tool")}
    usage, waited_ms = job.usage, sum(row.waited_ms for row in found)
    refused = f" ({job.invalid_calls} refused)" if job.invalid_calls else ""
    cached = f" ({count(usage.cached_tokens)} cached)" if usage.cached_tokens else ""
    facts = [
        duration(end_ms - job.created_ms),
        f"{job.turn} model turns in {duration(by_kind['model'])}",
        f"{job.tool_calls} tool calls{refused} in {duration(by_kind['tool'])}",
        f"{job.retries} retries" if job.retries else "",
        f"waited {duration(waited_ms)}" if waited_ms else "",
        f"{count(usage.input_tokens)} tokens in{cached}, {count(usage.output_tokens)} out",
    ]
    summary = Text(job.status.value, STYLES.get(job.status.value, ""))
    summary.append(" · " + " · ".join(filter(None, facts)), "default")
    lines = [Text(), summary] if found else [summary]
    reason = why_of_job(job, now_ms)
    if reason:
        lines.append(Text(printable(reason)))
    if job.status == "dead_lettered":
        lines.append(Text(f"`midwatch dlq replay {job.job_id}` tries it again where it stopped", "dim"))
    return lines
