"""`midwatch bench context`: replay recorded conversations in a session with a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.commands.bench_figures import print_figures
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
    "kept_percent",
    "worst_percent",
)
"""Columns of the table. `--json` prints every call."""

MUST_BE_ZERO = ("over_budget", "split_groups", "goal_lost", "system_lost")
"""Counts of broken promises. Any value above 0 is a fault of the context engine."""


@click.command("context")
@click.option(
    "--transcript",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Recorded conversations: JSON or JSON Lines, `.gz` or not.",
)
@click.option("--max-tokens", type=click.IntRange(1_000), metavar="N", help="Budget of a call, with its answer.")
@click.option(
    "--fill",
    type=click.FloatRange(0, min_open=True),
    metavar="PERCENT",
    help="Instead of --max-tokens: choose each budget so that the whole conversation fills it by PERCENT.",
)
@click.option(
    "--summarizer",
    type=click.Choice(("extractive", "model")),
    default="extractive",
    show_default=True,
    help="How the memory is written.",
)
@click.option("--summary-model", metavar="PROVIDER:MODEL", help="Model that writes the memory. Its calls cost money.")
@click.option(
    "--reserve-tokens",
    type=click.IntRange(1),
    metavar="N",
    help="Tokens of the budget that are reserved for the answer.",
)
@click.option("--only", metavar="ID|N", help="Use one record of the file, by its id or its number.")
@click.option("--no-peers", is_flag=True, help="Leave out the comparison with other ways of trimming.")
@options.as_json
def context(transcript: str, summary_model: str | None, no_peers: bool, as_json: bool, **given: Any) -> None:
    """Replay recorded conversations in a session with a budget, and check the window of every call.

    Exits with 1 if a call was over its budget, split a group, or lost the user's prompt.
    """
    from structlog.testing import capture_logs

    from midwatch.workers.bench.context.run import run

    if (given["max_tokens"] is None) == (given["fill"] is None):
        raise click.UsageError("expected either --max-tokens or --fill")
    if summary_model and given["summarizer"] != "model":
        raise click.UsageError("--summary-model needs --summarizer model; give both or neither")
    provider = _provider(summary_model) if summary_model else None
    with capture_logs() as logged:  # logs would go to stdout, where the figures go
        figures = run(
            Path(transcript), summary_model=summary_model, provider=provider, peers=not no_peers, say=say, **given
        )
    if reasons := [line["why"] for line in logged if line["event"] == "compaction.fell_back"]:
        say(
            f"{len(reasons)} of {figures['compactions']} memories were written without {summary_model}; "
            f"the first because: {reasons[0]}"
        )
    if as_json:
        print_json(figures)
    else:
        print_figures(_by_transcript(figures), as_json=False, line_per_row=True)
    if any(figures[name] for name in MUST_BE_ZERO):
        raise SystemExit(1)


def _provider(summary_model: str) -> Model:
    """Return the provider of the summary model, with the credentials of the environment."""
    from midwatch.orchestration.agents.model_names import ModelName
    from midwatch.workers.cli.environment import read_settings
    from midwatch.workers.process.runtime import make_model_loader

    return make_model_loader(read_settings())(ModelName.parse(summary_model).provider)


def _by_transcript(figures: dict[str, Any]) -> dict[str, Any]:
    """Return one row for each conversation and each peer, the means over the conversations, and the totals."""
    rows = [
        {"name": row["name"], **{name: row.get(name) for name in COLUMNS}}
        for row in (*figures["transcripts"], *figures["peers"], *figures["per_session"])
    ]
    totals = {name: value for name, value in figures.items() if not isinstance(value, list)}
    return {**totals, "endings": "; ".join(figures["endings"]) or None, "rows": rows}
