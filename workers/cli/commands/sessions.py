"""`midwatch sessions`: the conversation that a session's jobs have taken part in: read it, compact it, forget it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import connect
from midwatch.workers.cli.exits import Exit
from midwatch.workers.cli.lazy_group import InOrder
from midwatch.workers.cli.tables import print_card
from midwatch.workers.views.output import print_json, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from midwatch.schemas.message import Message

session_id = click.argument("session_id", metavar="ID")


@click.group(cls=InOrder)
def sessions() -> None:
    """Read, compact and forget the conversations that jobs take place in."""


@sessions.command("show")
@session_id
@options.as_json
def show(session_id: str, as_json: bool) -> None:
    """Show a conversation as the model sees it: its numbers, its memory, its messages.

    Long tool results are shortened here; what was compacted is in `export`.
    """
    found = connect().sessions
    numbers, memory, messages = found.show(session_id), found.memory(session_id), found.messages(session_id)
    if as_json:
        from dataclasses import asdict

        print_json(
            {
                **asdict(numbers),
                "memory": memory.model_dump(mode="json") if memory else None,
                "live": _plain(messages),
            }
        )
        return
    from midwatch.workers.cli.commands.session_words import memory_lines, numbers_card, paragraphs
    from midwatch.workers.settings import settings

    print_card(numbers_card(numbers, settings().session_originals_bytes))
    click.echo()
    parts = [*(memory_lines(memory) if memory else ()), *(p for message in messages for p in paragraphs(message))]
    if not sys.stdout.isatty():
        for _, heading, text in parts:
            click.echo(f"{heading}\n{text}\n")
        return
    from rich.text import Text

    from midwatch.workers.cli.commands.session_words import DIM, STYLES
    from midwatch.workers.cli.tables import console

    screen = console()
    for role, heading, text in parts:
        screen.print(Text(heading, STYLES[role]))
        screen.print(Text(text + "\n", "dim" if role in DIM else ""))


@sessions.command("export")
@session_id
def export(session_id: str) -> None:
    """Print a conversation as JSON, as it was said: what was compacted is put back."""
    messages = connect().sessions.originals(session_id)
    print_json({"session_id": session_id, "messages": _plain(messages)})


@sessions.command("compact")
@session_id
def compact(session_id: str) -> None:
    """Ask a worker to compact a conversation now, however full it is."""
    if connect().sessions.compact(session_id):
        say(
            f"session {session_id}: a worker was asked to compact it; `midwatch sessions show {session_id}` shows when it has"
        )
    else:
        say(f"session {session_id} is being compacted already")


@sessions.command("forget")
@session_id
@click.option("--yes", is_flag=True, help="Needed: what is forgotten can't be brought back.")
def forget(session_id: str, yes: bool) -> None:
    """Delete all that was said in a conversation, and what its jobs put out.

    Refused while a job is under way in it, or a dead letter holds it. The records of its jobs stay, without words, until
    their retention is over; conversations of child jobs are sessions of their own.
    """
    if not yes:
        raise click.UsageError(
            f"what is forgotten can't be brought back: `midwatch sessions forget {session_id} --yes`"
        )
    if connect().sessions.forget(session_id):
        say(f"session {session_id} is forgotten")
        return
    say(f"midwatch: no session {session_id!r}: nothing was said in it, or it was forgotten already")
    raise click.exceptions.Exit(Exit.NOT_FOUND)


def _plain(messages: Iterable[Message]) -> list[dict[str, object]]:
    return [message.model_dump(mode="json") for message in messages]
