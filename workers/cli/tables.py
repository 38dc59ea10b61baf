"""Listings: a table on a terminal, tab-separated values into a pipe. Rich is loaded for the first only."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from workers.cli.output import printable, printable_lines, say

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {
    "approve": "green",
    "cancelled": "magenta",
    "complete": "green",
    "completed": "green",
    "continue": "",
    "dead_letter": "red",
    "dead_lettered": "red",
    "defer": "yellow",
    "fail": "red",
    "ok": "green",
    "park": "bright_yellow",
    "parked": "bright_yellow",
    "queued": "dim",
    "running": "cyan",
    "timed_out": "magenta",
    "warn": "yellow",
}
"""Colours of the words for how things stand; the word is always there too."""

PIPED_COLUMNS = 160
"""Width of what is drawn for a terminal but goes into a file: nobody resizes a file."""


@dataclass(frozen=True)
class Column:
    """One column. Without `shrinks`, its cells are never cut: they are what people copy."""

    title: str
    align: Literal["left", "right"] = "left"
    shrinks: bool = False


def console() -> Console:
    """The terminal, or what stands in for it. Rich sees to NO_COLOR, FORCE_COLOR and COLUMNS."""
    from rich.console import Console

    plain = Console(highlight=False, emoji=False, markup=False)
    return plain if plain.is_terminal else Console(highlight=False, emoji=False, markup=False, width=PIPED_COLUMNS)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Print a listing; `empty` is said, as prose, when there is nothing to list."""
    if not rows:
        say(empty)
        return
    if not sys.stdout.isatty():
        click.echo("\t".join(column.title for column in columns))
        for row in rows:
            click.echo("\t".join(printable(cell) for cell in row))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        overflow: Literal["ellipsis", "fold"] = "ellipsis" if column.shrinks else "fold"
        table.add_column(
            column.title, justify=column.align, no_wrap=True, overflow=overflow, ratio=1 if column.shrinks else None
        )
    for row in rows:
        table.add_row(*(Text(printable(cell), STYLES.get(cell, "")) for cell in row))
    console().print(table)


def print_card(fields: Sequence[tuple[str, str]]) -> None:
    """Print one thing as names and values, a line each; empty values are left out."""
    shown = [(name, value) for name, value in fields if value]
    if not sys.stdout.isatty():
        for name, value in shown:
            click.echo(f"{name}\t{printable(value)}")
        return
    from rich.table import Table
    from rich.text import Text

    card = Table.grid(padding=(0, 2, 0, 0))
    for name, value in shown:
        card.add_row(Text(name, "dim"), Text(printable_lines(value), STYLES.get(value, "")))
    console().print(card)
