"""`midwatch bench context`: recorded conversations through a session with a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli import options
from midwatch.workers.views.output import print_json, say

if TYPE_CHECKING:
    from midwatch.orchestration.ports import Model

COLUMNS = (
    "max_tokens",
    "calls",
    "compactions",
    "over_budget",
    "split_groups",
    "goal_lost",
    "facts_needed",
    "facts_kept",
)
"""Of the table; `--json` has every call."""

BROKEN = ("over_budget", "split_groups", "goal_lost", "system_lost")
"""Promises. Anything but 0 is a failure of the engine, not a figure."""


@click.command("context")
@click.option(
    "--transcript",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Recorded conversations: JSON or JSON Lines, `.gz` or not.",
)
@click.option(
    "--max-tokens", type=click.IntRange(1_000), metavar="N", help="The budget of a call, its answer included."
)
@click.option(
    "--fill",
    type=click.FloatRange(0, min_open=True),
    metavar="PERCENT",
    help="Instead: the budget that each conversation, sent whole, would fill so far.",
)
@click.option(
    "--summarizer",
    type=click.Choice(("extractive", "model")),
    default="extractive",
    show_default=True,
    help="Who writes the memory.",
)
@click.option(
    "--summary-model", metavar="PROVIDER:MODEL", help="The model that does. It is called, and costs what it costs."
)
@click.option("--reserve-tokens", type=click.IntRange(1), metavar="N", help="Of the budget, for the answer.")
@click.option("--only", metavar="ID|N", help="One record of the file, by its id or its number.")
@click.option("--no-peers", is_flag=True, help="Leave out what other ways of trimming come to.")
@options.as_json
def context(transcript: str, summary_model: str | None, no_peers: bool, as_json: bool, **given: Any) -> None:
    """Play recorded conversations through a session with a budget, and judge what every call was sent.

    Exits with 1 when a call was over its budget, tore a group apart, or lost the user's prompt.
    """
    from structlog.testing import capture_logs

    from midwatch.workers.bench.context import run
    from midwatch.workers.cli.commands.bench import show

    if (given["max_tokens"] is None) == (given["fill"] is None):
        raise click.UsageError("expected --max-tokens or --fill, one of the two")
    if summary_model and given["summarizer"] != "model":
        raise click.UsageError("--summary-model is asked with --summarizer model only; give both or neither")
    provider = _provider(summary_model) if summary_model else None
    with capture_logs() as logged:  # figures go to stdout, and so would they
        figures = run(
            Path(transcript), summary_model=summary_model, provider=provider, peers=not no_peers, say=say, **given
        )
    if why := [line["why"] for line in logged if line["event"] == "compaction.fell_back"]:
        say(
            f"{len(why)} of {figures['compactions']} memories were written without {summary_model}; the first: {why[0]}"
        )
    if as_json:
        print_json(figures)
    else:
        show(_by_transcript(figures), as_json=False, across=True)
    if any(figures[name] for name in BROKEN):
        raise SystemExit(1)


def _provider(summary_model: str) -> Model:
    """Who answers for the model that summarizes, with the environment's credentials."""
    from midwatch.orchestration.agents.model_names import ModelName
    from midwatch.workers.cli.environment import read_settings
    from midwatch.workers.process.runtime import make_model_loader

    return make_model_loader(read_settings())(ModelName.parse(summary_model).provider)


def _by_transcript(figures: dict[str, Any]) -> dict[str, Any]:
    """A line for each conversation and each peer, the totals below."""
    rows = [
        {"name": row["name"], **{name: row.get(name) for name in COLUMNS}}
        for row in (*figures["transcripts"], *figures["peers"])
    ]
    totals = {name: value for name, value in figures.items() if not isinstance(value, list)}
    return {**totals, "endings": "; ".join(figures["endings"]) or None, "rows": rows}
