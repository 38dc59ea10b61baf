"""`midwatch simulate`: the model server as a process of its own."""

from __future__ import annotations

from pathlib import Path

import click

from midwatch.workers.cli.exits import Exit
from midwatch.workers.views.output import say

A_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Another address lets others change its faults.",
)
@click.option(
    "--port", type=click.IntRange(0, 65_535), metavar="PORT", default=0, help="0, the default, is a free one."
)
@click.option("--script", type=A_FILE, help="Replies in order, from a JSON or TOML file.")
@click.option("--transcript", type=A_FILE, help="Replies as recorded, from a JSON Lines file (.gz or not).")
@click.option("--rules", metavar="MODULE:ATTR", help="Replies by a rule set of your own.")
@click.option("--chaos", default="", metavar="FAULTS", help="For example rate_limited=0.05,reset@3,hang@turn2,seed=7.")
@click.option("--seed", type=int, metavar="N", help="Of the faults; the same seed faults the same calls.")
@click.option("--latency-ms", default="0", show_default=True, metavar="MS", help="300, or a range like 200-800.")
@click.option("--journal", type=A_FILE, help="Append a JSON line for each model call.")
@click.option("--exit-with-stdin", is_flag=True, help="End when stdin closes.")
def simulate(**given: object) -> None:
    """Serve a model on loopback, with faults on demand.

    It speaks Anthropic Messages, OpenAI Responses and OpenAI Chat Completions on the wire. Without --script,
    --transcript or --rules it calls each tool once. Prints its addresses as one JSON line once it is up, and serves
    until SIGTERM or Ctrl-C.
    """
    from pydantic import ValidationError

    from midwatch.workers.simulator.serve import Options, serve

    try:
        serve(Options.model_validate(given))
    except ValidationError as error:
        raise click.UsageError(str(error.errors()[0]["msg"])) from error
    except OSError as error:
        say(f"midwatch: simulate: {error.strerror or error} (host {given['host']}, port {given['port']})")
        raise click.exceptions.Exit(Exit.FAILED) from error
