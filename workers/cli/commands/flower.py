"""`midwatch flower`: serve Flower with Midwatch's pages."""

from __future__ import annotations

import click

from midwatch.workers.cli.environment import read_settings


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--port", type=click.IntRange(1, 65_535), metavar="PORT", default=5555, show_default=True, help="Port to listen on."
)
@click.option(
    "--address",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Other addresses than loopback need a login.",
)
@click.argument("flower_arguments", metavar="[FLOWER_OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
def flower(port: int, address: str, flower_arguments: tuple[str, ...]) -> None:
    """Serve Flower with Midwatch's pages.

    The pages show jobs with their waterfalls, and dead letters with buttons to replay them. Options of Flower may follow
    after `--`.
    """
    read_settings()
    from midwatch.workers.flower.launch import run

    run(port, address, flower_arguments)
