"""Listings: a table on a terminal, tab-separated values in a pipe. Rich is imported only for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from midwatch.workers.views.output import printable, printable_lines, say, shorten_ids

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

STYLES = {
    "blocked": "red",
    "cancelled": "magenta",
    "complete": "green",
    "completed": "green",
    "dead_letter": "red",
    "dead_lettered": "red",
    "defer": "yellow",
    "fail": "red",
    "half_open": "yellow",
    "ok": "green",
    "open": "red",
    "park": "yellow",
    "parked": "yellow",
    "paused": "yellow",
    "queued": "dim",
    "running": "cyan",
    "slowed": "cyan",
    "timed_out": "magenta",
    "trouble": "red",
    "warn": "yellow",
}
"""Colour of each status word. The word itself is always printed."""

GAP = 2
INDENT = 4
LEAST_WRAPPED = 20
"""Least width of text that is wrapped. In less room it is cut."""
LONG_COLUMNS = 40
"""Least width of the long cell on the line of its row. If there is less room, it is printed on the next line."""

PIPED_COLUMNS = 160
"""Width of a drawing that goes into a file or a pipe."""


@dataclass(frozen=True)
class Column:
    """One column of a listing.

    `fixed` cells are never cut, because people copy them. `spare` columns are left out on a narrow terminal. The last
    column may be `long`: it gets the rest of the width.
    """

    title: str
    align: Literal["left", "right"] = "left"
    kind: Literal["fixed", "spare", "long"] = "fixed"


def console() -> Console:
    """Return a console for stdout. Rich reads NO_COLOR, FORCE_COLOR and COLUMNS."""
    from rich.console import Console

    plain = Console(highlight=False, emoji=False, markup=False)
    return plain if plain.is_terminal else Console(highlight=False, emoji=False, markup=False, width=PIPED_COLUMNS)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, empty: str, whole: bool = False) -> None:
    """Print a listing. If there are no rows, print `empty` on stderr. A `whole` listing wraps its last cells and cuts none."""
    if not rows:
        say(empty)
    elif not sys.stdout.isatty():
        click.echo("\t".join(column.title for column in columns))
        for row in rows:
            click.echo("\t".join(printable(cell) for cell in row))
    else:
        screen = console()
        print_lines(
            screen, lay_out(columns, [[shorten_ids(cell) for cell in row] for row in rows], screen.width, whole=whole)
        )


def print_lines(screen: Console, lines: Sequence[Text]) -> None:
    """Print lines without wrapping. Longer lines are cut, because a wrapped table is unreadable."""
    for line in lines:
        screen.print(line, no_wrap=True, overflow="ellipsis")


def lay_out(
    columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], width: int, *, whole: bool = False
) -> list[Text]:
    """Return the lines of a table that fits `width`. Empty columns are left out.

    What does not fit is cut. In a `whole` table it is wrapped, for advice that a reader must see to the end.
    """
    from rich.text import Text

    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(column.title), *(row[p].cell_len for row in cells)) for p, column in enumerate(columns)]
    shown = [p for p in range(len(columns)) if any(row[p].cell_len for row in cells)]
    long = next((p for p in shown if columns[p].kind == "long"), None)
    others, fits = _choose_columns(columns, widths, [p for p in shown if p != long], width, long is not None)
    places = [*others, long] if long is not None and fits else others
    last_at = sum(widths[p] + GAP for p in places[:-1])
    lines = _fit(_line(columns, [Text(column.title, "bold") for column in columns], widths, places), width)
    for row in cells:
        lines += _fit(_line(columns, row, widths, places), width, last_at if whole else None)
        if long is not None and not fits and row[long].cell_len:
            lines += _fit(Text(" " * INDENT, "dim").append_text(row[long]), width, INDENT if whole else None)
    return lines


def _fit(line: Text, width: int, indent: int | None = None) -> list[Text]:
    """Cut a line to the width. With an `indent`, wrap what stands right of it instead."""
    from rich.console import Console
    from rich.text import Text

    if indent is None or line.cell_len <= width or width - indent < LEAST_WRAPPED:
        line.truncate(width, overflow="ellipsis")
        return [line]
    head, tail = line[:indent], line[indent:]
    parts = tail.wrap(Console(width=width), width - indent)
    for part in parts:
        part.rstrip()
    return [(Text(" " * indent) if number else head) + part for number, part in enumerate(parts)]


def _choose_columns(
    columns: Sequence[Column], widths: Sequence[int], places: Sequence[int], width: int, long: bool
) -> tuple[list[int], bool]:
    """Choose the columns to show, and whether the long column fits on the same line.

    Spare columns are left out if that makes enough room.
    """
    spare = [p for p in reversed(places) if columns[p].kind == "spare"]
    for needed in (LONG_COLUMNS, -GAP) if long else (-GAP,):
        for left_out in range(len(spare) + 1):
            kept = [p for p in places if p not in spare[:left_out]]
            if width - sum(widths[p] + GAP for p in kept) >= needed:
                return kept, needed == LONG_COLUMNS
    return [p for p in places if p not in spare], False


def _text(cell: str | Text) -> Text:
    from rich.text import Text

    return Text(printable(cell), STYLES.get(cell, "")) if isinstance(cell, str) else cell


def _line(columns: Sequence[Column], cells: Sequence[Text], widths: Sequence[int], places: Sequence[int]) -> Text:
    from rich.text import Text

    line = Text()
    for p in places:
        pad = " " * max(0, widths[p] - cells[p].cell_len)
        if columns[p].align == "right":
            line.append(pad)
        line.append_text(cells[p])
        line.append((pad if columns[p].align == "left" else "") + " " * GAP)
    line.rstrip()
    return line


def print_card(fields: Sequence[tuple[str, str]]) -> None:
    """Print one record as names and values, one per line. Empty values are left out."""
    if sys.stdout.isatty():
        console().print(card(fields))
        return
    for name, value in fields:
        if value:
            click.echo(f"{name}\t{printable(value)}")


def card(fields: Sequence[tuple[str, str]]) -> RichTable:
    """Return the card for a terminal."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table.grid(padding=(0, 2, 0, 0))
    for name, value in fields:
        if value:
            drawn.add_row(Text(name, "dim"), Text(printable_lines(value), STYLES.get(value, "")))
    return drawn
