"""`midwatch sessions`: read, compact and forget the conversation of a session."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import connect
from midwatch.workers.cli.exits import Exit
from midwatch.workers.cli.lazy_group import OrderedGroup
from midwatch.workers.cli.tables import print_card
from midwatch.workers.views.output import print_json, say
from midwatch.workers.views.unreadable import unreadable_as_json, warn_of_unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from midwatch.schemas.message import Message

session_id = click.argument("session_id", metavar="ID", callback=options.expand_session_id)


@click.group(cls=OrderedGroup)
def sessions() -> None:
    """Read, compact and forget the conversations of jobs."""


@sessions.command("show")
@session_id
@options.as_json
def show(session_id: str, as_json: bool) -> None:
    """Show a conversation as the model sees it: its numbers, its memory, its messages.

    Long tool results are shortened. `export` prints compacted messages as well.
    """
    from midwatch.orchestration.errors import UnreadableRecord

    found = connect().sessions
    numbers, messages = found.show(session_id), found.messages(session_id)
    unreadable = list(messages.unreadable)
    memory = None
    try:
        memory = found.memory(session_id)
    except UnreadableRecord as error:
        unreadable.append(error)
    warn_of_unreadable(unreadable)
    if as_json:
        from dataclasses import asdict

        print_json(
            {
                **asdict(numbers),
                "memory": memory.model_dump(mode="json") if memory else None,
                "live": _plain(messages),
                **unreadable_as_json(unreadable),
            }
        )
        return
    from midwatch.workers.cli.commands.session_text import format_memory, format_message, numbers_card
    from midwatch.workers.settings import settings

    print_card(numbers_card(numbers, settings().session_originals_bytes))
    click.echo()
    parts = [*([format_memory(memory)] if memory else ()), *(format_message(message) for message in messages)]
    if not sys.stdout.isatty():
        for _, heading, text in parts:
            click.echo(f"{heading}\n{text}\n")
        return
    from rich.text import Text

    from midwatch.workers.cli.commands.session_text import DIM, STYLES
    from midwatch.workers.cli.tables import console

    screen = console()
    for role, heading, text in parts:
        screen.print(Text(heading, STYLES[role]))
        screen.print(Text(text + "\n", "dim" if role in DIM else ""))


@sessions.command("export")
@session_id
def export(session_id: str) -> None:
    """Print the whole conversation as JSON, with the original messages in place of the memory."""
    messages = connect().sessions.originals(session_id)
    warn_of_unreadable(messages.unreadable)
    shown = {"session_id": session_id, "messages": _plain(messages)}
    print_json({**shown, **unreadable_as_json(messages.unreadable)})


@sessions.command("compact")
@session_id
def compact(session_id: str) -> None:
    """Let a worker compact a conversation now, even if its window is not full."""
    if connect().sessions.compact(session_id):
        say(
            f"session {session_id} will be compacted by a worker; `midwatch sessions show {session_id}` shows the result"
        )
    else:
        say(f"session {session_id}: a compaction is already running")


@sessions.command("forget")
@session_id
@click.option("--yes", is_flag=True, help="Required, because a forgotten session can't be restored.")
def forget(session_id: str, yes: bool) -> None:
    """Delete all messages of a conversation, and the outputs of its jobs.

    Refused while a job runs in the session, or a dead letter holds it. The records of its jobs stay until they expire,
    without texts. Child jobs have other sessions, which are not deleted.
    """
    if not yes:
        raise click.UsageError(
            f"a forgotten session can't be restored; to go on: `midwatch sessions forget {session_id} --yes`"
        )
    if connect().sessions.forget(session_id):
        say(f"session {session_id} is forgotten")
        return
    say(f"midwatch: no session {session_id!r}: it has no messages, or it was forgotten already")
    raise click.exceptions.Exit(Exit.NOT_FOUND)


def _plain(messages: Iterable[Message]) -> list[dict[str, object]]:
    return [message.model_dump(mode="json") for message in messages]
