"""`midwatch simulate`: run the model server as a process."""

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
    help="Address to listen on. On another address other machines can change its faults.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    default=0,
    help="Port to listen on. The default 0 takes a free one.",
)
@click.option("--script", type=A_FILE, help="Replies in order, from a JSON or TOML file.")
@click.option("--transcript", type=A_FILE, help="Recorded replies, from a JSON Lines file (.gz or not).")
@click.option("--rules", metavar="MODULE:ATTR", help="Replies from a rule set in your code.")
@click.option(
    "--chaos", default="", metavar="FAULTS", help="Faults, for example rate_limited=0.05,reset@3,hang@turn2,seed=7."
)
@click.option("--seed", type=int, metavar="N", help="Seed of the faults. The same seed gives the same faults.")
@click.option(
    "--latency-ms",
    default="0",
    show_default=True,
    metavar="MS",
    help="Delay of each reply: 300, or a range like 200-800.",
)
@click.option("--journal", type=A_FILE, help="Append a JSON line for each model call.")
@click.option("--exit-with-stdin", is_flag=True, help="End when stdin closes.")
def simulate(**given: object) -> None:
    """Serve a simulated model on loopback, with faults on demand.

    It serves the APIs Anthropic Messages, OpenAI Responses and OpenAI Chat Completions. Without --script, --transcript or
    --rules it calls each tool once. When it is ready, it prints its addresses as one line of JSON. It serves until SIGTERM
    or Ctrl-C.
    """
    from pydantic import ValidationError

    from midwatch.workers.simulator.server_process import Options, serve

    try:
        serve(Options.model_validate(given))
    except ValidationError as error:
        raise click.UsageError(str(error.errors()[0]["msg"])) from error
    except OSError as error:
        say(f"midwatch: simulate: {error.strerror or error} (host {given['host']}, port {given['port']})")
        raise click.exceptions.Exit(Exit.FAILED) from error
