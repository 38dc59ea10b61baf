"""`midwatch bench strays`: stray 429s, and limits that the downstream does not name, in simulated time."""

from __future__ import annotations

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.commands.bench_figures import print_figures
from midwatch.workers.views.output import say


@click.command("strays")
@click.option(
    "--seconds",
    type=click.FloatRange(10, 3_600),
    metavar="S",
    default=300.0,
    show_default=True,
    help="Simulated time of each cell.",
)
@click.option(
    "--seed", type=click.IntRange(0, 1_000), metavar="N", default=0, show_default=True, help="Seed of chance."
)
@click.option(
    "--most",
    type=click.FloatRange(1, 100_000),
    metavar="N",
    default=100_000.0,
    help="Leave out cells with more calls a minute.",
)
@options.as_json
def strays(seconds: float, seed: int, most: float, as_json: bool) -> None:
    """Refuse calls by chance, or above a hidden limit, and show the share of the possible calls that is answered."""
    from midwatch.workers.bench.strays import make_cells, run

    cells = [cell for cell in make_cells() if cell.offered <= most]
    print_figures(run(seconds=seconds, seed=seed, cells=cells, say=say), as_json=as_json, line_per_row=True)
