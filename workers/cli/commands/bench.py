"""`midwatch bench`: figures of this machine, each measured beside its baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.commands.bench_context import context
from midwatch.workers.cli.lazy_group import InOrder
from midwatch.workers.cli.tables import Column, print_card, print_table
from midwatch.workers.views.output import print_json, say

PROSE = ("decides", "verdict")
"""Fields of rows that are too long for a table; `--json` has them."""


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
    from midwatch.workers.bench.steps.steps import run

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
    from midwatch.workers.bench.steps.recovery import run

    show(run(jobs=jobs, kills=kills, processes=processes, say=say), as_json=as_json)


@bench.command("admission")
@click.option("--processes", metavar="N,N,...", default="1,4,16", show_default=True, help="Client processes at once.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 60), metavar="S", default=2.0, show_default=True, help="Of each row."
)
@click.option(
    "--rounds", type=click.IntRange(1, 20), metavar="N", default=3, show_default=True, help="Figures are their medians."
)
@options.as_json
def admission(processes: str, seconds: float, rounds: int, as_json: bool) -> None:
    """Measure a decision of the coordinator, beside the rate limiters of PyPI (`pip install midwatch[bench]`)."""
    from midwatch.workers.bench.admission.admission import run

    show(run(processes=_counts(processes), seconds=seconds, rounds=rounds, say=say), as_json=as_json, across=True)


@bench.command("storm")
@click.option("--simulate", is_flag=True, help="14,600 calls in simulated time, on the real scripts.")
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    metavar="NAME",
    help="outage, random, double or retry_after; simulated: ample, tight, tight_charged, brownout, hang or partial.",
)
@click.option(
    "--lineages",
    type=click.IntRange(1, 5_000),
    metavar="N",
    help="Root jobs with 8 x 8 children; 40, or 500 lone calls.",
)
@click.option(
    "--outage", type=click.FloatRange(1, 600), metavar="S", default=60.0, show_default=True, help="Of trouble."
)
@click.option(
    "--limit", type=click.FloatRange(1, 10_000), metavar="N", default=40.0, show_default=True, help="Calls a second."
)
@click.option("--calls", type=click.Choice(["tool", "model"]), default="tool", show_default=True, help="What calls.")
@click.option("--seeds", type=click.IntRange(1, 20), metavar="N", default=3, show_default=True, help="Of a simulation.")
@click.option("--no-naive", is_flag=True, help="Leave Celery's own retrying out.")
@options.as_json
def storm(
    simulate: bool, scenarios: tuple[str, ...], lineages: int | None, outage: float, limit: float, calls: Any, seeds: int,
    no_naive: bool, as_json: bool,
) -> None:  # fmt: skip
    """Let a downstream fail under a fleet, beside Celery's own retrying; or simulate it for many more calls."""
    if simulate:
        from midwatch.workers.bench.storm_simulated import COORDINATED, run_simulation

        strategies = tuple(COORDINATED) if no_naive else ()
        show(
            run_simulation(scenarios=scenarios, seeds=seeds, strategies=strategies, say=say),
            as_json=as_json,
            across=True,
        )
        return
    from midwatch.workers.bench.storm_real.fleet import run

    if len(scenarios) > 1:
        raise click.UsageError("--scenario: one at a time plays on a real fleet; more than one needs --simulate")
    scenario: Any = scenarios[0] if scenarios else "outage"
    many = lineages or (500 if scenario == "retry_after" else 40)
    figures = run(
        lineages=many, outage_s=outage, limit_per_s=limit, scenario=scenario, calls=calls, naive=not no_naive, say=say
    )
    show(figures, as_json=as_json)


@bench.command("validation")
@click.option(
    "--cases",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help='JSON lines: {"schema", "arguments": "the raw text", "valid"?}.',
)
@options.as_json
def validation(cases: Path, as_json: bool) -> None:
    """Judge recorded tool calls by their schemas as a worker would, beside plain `jsonschema.validate()`."""
    from midwatch.workers.bench.validation import run

    show(run(cases, say=say), as_json=as_json)


@bench.command("judged")
@click.option(
    "--seconds", type=click.IntRange(10, 3_600), metavar="S", default=120, show_default=True, help="Of each fleet."
)
@click.option(
    "--rpm", type=click.IntRange(6, 60_000), metavar="N", default=120, show_default=True, help="The server's limit."
)
@click.option("--only", multiple=True, metavar="FLEET", help="One of the fleets by its name; may be repeated.")
@options.as_json
def judged(seconds: int, rpm: int, only: tuple[str, ...], as_json: bool) -> None:
    """Let an independent chaos server judge the fleet: llmock, its limits, its verdict. Exits with 1 on a shortfall."""
    from midwatch.workers.bench.judged.judged import run

    figures = run(seconds=seconds, rpm=rpm, only=only, say=say)
    show(figures, as_json=as_json, across=True)
    if figures["missed"]:
        raise SystemExit(1)


bench.add_command(context)


def _counts(text: str) -> tuple[int, ...]:
    counts = tuple(int(part) for part in text.split(",") if part.strip().isdigit())
    if not counts or not all(1 <= count <= 64 for count in counts):
        raise click.UsageError(f"--processes {text!r}: expected numbers from 1 to 64, separated by commas")
    return counts


def show(figures: dict[str, Any], *, as_json: bool, across: bool = False) -> None:
    """Print figures: one document, or a table of the rows with the rest below. `across`: a line for each row."""
    if as_json:
        print_json(figures)
        return
    found = figures.get("rows") or []
    if found and across:
        names = [name for name in found[0] if name not in PROSE]
        columns = [
            Column(name.replace("_", " ").upper(), "left" if n == 0 else "right") for n, name in enumerate(names)
        ]
        print_table(columns, [[_cell(row.get(name)) for name in names] for row in found], empty="")
    elif found:
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
