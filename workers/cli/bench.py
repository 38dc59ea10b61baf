"""`midwatch bench`: figures of this machine, each measured beside its baseline."""

from __future__ import annotations

from typing import Any

import click

from workers.cli import options
from workers.cli.lazygroup import InOrder
from workers.cli.output import print_json, say
from workers.cli.tables import Column, print_card, print_table


@click.group(cls=InOrder)
def bench() -> None:
    """Measure this machine."""


@bench.command("steps")
@click.option(
    "--rounds", type=click.IntRange(1, 20), metavar="N", default=3, show_default=True, help="Figures are their medians."
)
@click.option("--quick", is_flag=True, help="One small round: does it run at all?")
@options.as_json
def steps(rounds: int, quick: bool, as_json: bool) -> None:
    """Measure what a step costs, beside the bare Celery loop."""
    from workers.bench.steps import run

    show(run(rounds=rounds, quick=quick, say=say), as_json=as_json)


@bench.command("recovery")
@click.option(
    "--jobs", type=click.IntRange(1, 1_000), metavar="N", default=20, show_default=True, help="Jobs under way."
)
@click.option(
    "--kills",
    type=click.IntRange(1, 20),
    metavar="N",
    default=2,
    show_default=True,
    help="How often all workers are killed.",
)
@click.option("--processes", type=click.IntRange(1, 16), metavar="N", default=2, show_default=True, help="Workers.")
@options.as_json
def recovery(jobs: int, kills: int, processes: int, as_json: bool) -> None:
    """Measure how soon every step goes on after kill -9 of all workers."""
    from workers.bench.recovery import run

    show(run(jobs=jobs, kills=kills, processes=processes, say=say), as_json=as_json)


def show(figures: dict[str, Any], *, as_json: bool) -> None:
    """Print figures: one document, or a table of the rows with the rest below."""
    if as_json:
        print_json(figures)
        return
    found = figures.get("rows") or []
    if found:
        print_table([Column("FIGURE"), *_titles(found)], _turned(found), empty="")
    print_card([(name.replace("_", " "), _cell(value)) for name, value in figures.items() if name != "rows"])


def _titles(found: list[dict[str, Any]]) -> list[Column]:
    """A column for each row: there are more figures than rows, and a terminal is higher than it is wide."""
    return [
        Column(f"{row.get('tool', '')} {row.get('jobs', '')}x{row.get('steps_per_job', '')}".strip(), "right")
        for row in found
    ]


def _turned(found: list[dict[str, Any]]) -> list[list[str]]:
    names = [name for name in found[0] if name not in ("tool", "jobs", "steps_per_job")]
    return [[name.replace("_", " "), *(_cell(row.get(name)) for row in found)] for name in names]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,.4g}" if isinstance(value, float) and value < 1_000 else str(value)
