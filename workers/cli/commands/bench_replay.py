"""`midwatch bench replay`: dead letters of an outage that heal themselves."""

from __future__ import annotations

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.commands.bench_figures import print_figures
from midwatch.workers.cli.letter_options import read_rate
from midwatch.workers.views.output import say


@click.command("replay")
@click.option(
    "--letters", type=click.IntRange(20, 100_000), metavar="N", default=300, show_default=True, help="Dead letters."
)
@click.option(
    "--limit", metavar="N/s", default="50/s", show_default=True, callback=read_rate, help="The provider's limit."
)
@options.as_json
def replay(letters: int, limit: float, as_json: bool) -> None:
    """Let an outage make dead letters, and see them replayed without a human. Then see a redrive stop at a cause that stays."""
    from midwatch.workers.bench.replay.plan import Plan
    from midwatch.workers.bench.replay.run import run

    print_figures(run(Plan(letters=letters, limit_per_s=limit), say=say), as_json=as_json)
