"""`midwatch bench`: benchmarks on this machine, each compared with its baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.commands.bench_context import context
from midwatch.workers.cli.commands.bench_figures import print_figures
from midwatch.workers.cli.commands.bench_replay import replay
from midwatch.workers.cli.commands.bench_strays import strays
from midwatch.workers.cli.lazy_group import OrderedGroup
from midwatch.workers.views.output import say


@click.group(cls=OrderedGroup)
def bench() -> None:
    """Run benchmarks on this machine."""


@bench.command("steps")
@click.option(
    "--rounds",
    type=click.IntRange(1, 20),
    metavar="N",
    default=3,
    show_default=True,
    help="Number of rounds. Figures are medians.",
)
@click.option("--quick", is_flag=True, help="Run one small round, to see whether it works.")
@options.as_json
def steps(rounds: int, quick: bool, as_json: bool) -> None:
    """Measure the cost of a step, compared with a bare Celery loop."""
    from midwatch.workers.bench.steps.run import run

    print_figures(run(rounds=rounds, quick=quick, say=say), as_json=as_json)


@bench.command("recovery")
@click.option("--jobs", type=click.IntRange(1, 1_000), metavar="N", default=20, show_default=True, help="Running jobs.")
@click.option(
    "--kills",
    type=click.IntRange(1, 20),
    metavar="N",
    default=2,
    show_default=True,
    help="How often all workers are killed.",
)
@click.option(
    "--processes", type=click.IntRange(1, 16), metavar="N", default=2, show_default=True, help="Worker processes."
)
@options.as_json
def recovery(jobs: int, kills: int, processes: int, as_json: bool) -> None:
    """Measure how soon all steps go on after kill -9 of all workers."""
    from midwatch.workers.bench.steps.recovery import run

    print_figures(run(jobs=jobs, kills=kills, processes=processes, say=say), as_json=as_json)


@bench.command("admission")
@click.option(
    "--processes", metavar="N,N,...", default="1,4,16", show_default=True, help="Numbers of client processes."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 60),
    metavar="S",
    default=2.0,
    show_default=True,
    help="Duration of each row.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 20),
    metavar="N",
    default=3,
    show_default=True,
    help="Number of rounds. Figures are medians.",
)
@options.as_json
def admission(processes: str, seconds: float, rounds: int, as_json: bool) -> None:
    """Measure a decision of the coordinator, compared with rate limiters from PyPI (`pip install midwatch[bench]`)."""
    from midwatch.workers.bench.admission.run import run

    figures = run(processes=_parse_counts(processes), seconds=seconds, rounds=rounds, say=say)
    print_figures(figures, as_json=as_json, line_per_row=True)


@bench.command("storm")
@click.option("--simulate", is_flag=True, help="Simulate 14,600 calls in simulated time, with the real scripts.")
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
    help="Root jobs with 8 x 8 children. Default: 40; for retry_after 500 single calls.",
)
@click.option(
    "--outage",
    type=click.FloatRange(1, 600),
    metavar="S",
    default=60.0,
    show_default=True,
    help="Length of the outage.",
)
@click.option(
    "--limit", type=click.FloatRange(1, 10_000), metavar="N", default=40.0, show_default=True, help="Calls per second."
)
@click.option("--calls", type=click.Choice(["tool", "model"]), default="tool", show_default=True, help="Kind of calls.")
@click.option(
    "--seeds", type=click.IntRange(1, 20), metavar="N", default=3, show_default=True, help="Runs of a simulation."
)
@click.option("--no-naive", is_flag=True, help="Leave out the comparison with Celery's retries.")
@options.as_json
def storm(
    simulate: bool, scenarios: tuple[str, ...], lineages: int | None, outage: float, limit: float, calls: Any, seeds: int,
    no_naive: bool, as_json: bool,
) -> None:  # fmt: skip
    """Let a downstream fail under a fleet, and compare with Celery's retries. Or simulate it with many more calls."""
    if simulate:
        from midwatch.workers.bench.storm_simulated import COORDINATED, run_simulation

        strategies = tuple(COORDINATED) if no_naive else ()
        print_figures(
            run_simulation(scenarios=scenarios, seeds=seeds, strategies=strategies, say=say),
            as_json=as_json,
            line_per_row=True,
        )
        return
    from midwatch.workers.bench.storm_real.run import run

    if len(scenarios) > 1:
        raise click.UsageError("--scenario: a real fleet runs one scenario at a time; several need --simulate")
    scenario: Any = scenarios[0] if scenarios else "outage"
    many = lineages or (500 if scenario == "retry_after" else 40)
    figures = run(
        lineages=many, outage_s=outage, limit_per_s=limit, scenario=scenario, calls=calls, naive=not no_naive, say=say
    )
    print_figures(figures, as_json=as_json)


@bench.command("backlog")
@click.option("--jobs", type=click.IntRange(1, 100_000), metavar="N", default=240, show_default=True, help="Jobs.")
@click.option(
    "--turns", type=click.IntRange(1, 1_000), metavar="N", default=10, show_default=True, help="Model turns of a job."
)
@click.option(
    "--slots", type=click.IntRange(1, 500), metavar="N", default=8, show_default=True, help="Model calls at once."
)
@click.option("--limit", type=click.FloatRange(0.1, 10_000), metavar="N", help="Calls per second of the downstream.")
@click.option(
    "--tool-s",
    type=click.FloatRange(0, 60),
    metavar="S",
    default=0.0,
    help="Duration of a tool call, which is then a separate task. Default: the tool is inline.",
)
@click.option(
    "--timeout", type=click.FloatRange(1), metavar="S", default=30.0, show_default=True, help="session_timeout_s."
)
@click.option(
    "--others", type=click.IntRange(0, 1_000), metavar="N", default=0, help="Jobs of a second tenant, enqueued last."
)
@click.option("--no-waves", is_flag=True, help="Leave out the comparison with waves.")
@options.as_json
def backlog(
    jobs: int, turns: int, slots: int, limit: float | None, tool_s: float, timeout: float, others: int, no_waves: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Enqueue many jobs at once on few slots, and compare with the same jobs in waves that fill the slots."""
    from midwatch.workers.bench.backlog.plan import Plan
    from midwatch.workers.bench.backlog.run import run

    plan = Plan(
        jobs=jobs, turns=turns, slots=slots, limit_per_s=limit, tool_s=tool_s, session_timeout_s=timeout, others=others
    )
    print_figures(run(plan, waves=not no_waves, say=say), as_json=as_json)


@bench.command("validation")
@click.option(
    "--cases",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help='JSON Lines: {"schema", "arguments": "the raw text", "valid"?}.',
)
@click.option(
    "--suite",
    "suites",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="A draft of the JSON Schema Test Suite: its folder, or one file with all of it. May be repeated.",
)
@options.as_json
def validation(cases: Path | None, suites: tuple[Path, ...], as_json: bool) -> None:
    """Validate recorded tool calls as a worker does, and compare with plain `jsonschema.validate()`."""
    from midwatch.workers.bench.validation import run

    print_figures(run(cases, say=say, suites=suites), as_json=as_json)


@bench.command("judged")
@click.option(
    "--seconds",
    type=click.IntRange(10, 3_600),
    metavar="S",
    default=120,
    show_default=True,
    help="Duration for each fleet.",
)
@click.option(
    "--rpm",
    type=click.IntRange(6, 60_000),
    metavar="N",
    default=120,
    show_default=True,
    help="The server's limit per minute.",
)
@click.option("--only", multiple=True, metavar="FLEET", help="Name of a fleet to run. May be repeated.")
@options.as_json
def judged(seconds: int, rpm: int, only: tuple[str, ...], as_json: bool) -> None:
    """Run fleets against llmock, an independent chaos server, and print its figures. Exits with 1 if an aim is missed."""
    from midwatch.workers.bench.judged.run import run

    figures = run(seconds=seconds, rpm=rpm, only=only, say=say)
    print_figures(figures, as_json=as_json, line_per_row=True)
    if figures["missed"]:
        raise SystemExit(1)


bench.add_command(replay)
bench.add_command(strays)
bench.add_command(context)


def _parse_counts(text: str) -> tuple[int, ...]:
    counts = tuple(int(part) for part in text.split(",") if part.strip().isdigit())
    if not counts or not all(1 <= count <= 64 for count in counts):
        raise click.UsageError(f"--processes {text!r}: expected numbers from 1 to 64, separated by commas")
    return counts
