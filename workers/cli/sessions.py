"""`midwatch sessions`: the conversation that a session's jobs have taken part in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from workers.cli import options
from workers.cli.environment import connect
from workers.cli.lazygroup import InOrder
from workers.cli.output import print_json, printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.message import Message

RESULT_CHARACTERS = 600
"""How much of a tool's result `show` prints; `export` has all of it."""

STYLES = {"user": "bold cyan", "assistant": "bold green", "tool": "bold", "note": "bold yellow"}


@click.group(cls=InOrder)
def sessions() -> None:
    """Read the conversations that jobs take place in."""


@sessions.command("show")
@click.argument("session_id", metavar="ID")
@options.as_json
def show(session_id: str, as_json: bool) -> None:
    """Show a conversation, long tool results shortened."""
    messages = connect().sessions.messages(session_id)
    if as_json:
        _print_export(session_id, messages)
        return
    if not sys.stdout.isatty():
        for message in messages:
            for heading, text in _paragraphs(message):
                click.echo(f"{heading}\n{text}\n")
        return
    from rich.text import Text

    from workers.cli.tables import console

    screen = console()
    for message in messages:
        for heading, text in _paragraphs(message):
            screen.print(Text(heading, STYLES[message.role]))
            screen.print(Text(text + "\n", "dim" if message.role == "tool" else ""))


@sessions.command("export")
@click.argument("session_id", metavar="ID")
def export(session_id: str) -> None:
    """Print a conversation as JSON, exactly as it is kept."""
    _print_export(session_id, connect().sessions.messages(session_id))


def _print_export(session_id: str, messages: tuple[Message, ...]) -> None:
    print_json({"session_id": session_id, "messages": [message.model_dump(mode="json") for message in messages]})


def _paragraphs(message: Message) -> Iterator[tuple[str, str]]:
    """A message as headings and texts, safe to print."""
    if message.role == "assistant":
        calls = "\n".join(f"→ {call.name}({call.raw_arguments})" for call in message.tool_calls)
        said = "\n".join(filter(None, (message.text, calls))) or "(nothing)"
        yield f"assistant ({printable(message.model)})", printable_lines(said)
    elif message.role == "tool":
        text = message.content
        cut = len(text) - RESULT_CHARACTERS
        shown = text if cut <= 0 else f"{text[:RESULT_CHARACTERS]} … and {cut:,} characters more"
        yield f"{printable(message.tool)} {'failed' if message.is_error else 'returned'}", printable_lines(shown)
    else:
        yield message.role, printable_lines(message.text)
