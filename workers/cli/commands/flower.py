"""`midwatch flower`: Flower with Midwatch's pages."""

from __future__ import annotations

import click

from midwatch.workers.cli.environment import read_settings


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--port", type=click.IntRange(1, 65_535), metavar="PORT", default=5555, show_default=True, help="Where to listen."
)
@click.option(
    "--address", metavar="HOST", default="127.0.0.1", show_default=True, help="Another address needs authentication."
)
@click.argument("flower_arguments", metavar="[FLOWER_OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
def flower(port: int, address: str, flower_arguments: tuple[str, ...]) -> None:
    """Serve Flower, with Midwatch's pages in it.

    Jobs with their waterfalls, and dead letters to replay, beside Flower's own pages. Flower's own options may follow.
    """
    read_settings()
    from midwatch.workers.flower.launch import run

    run(port, address, flower_arguments)
