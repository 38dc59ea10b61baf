"""Printing: data goes to stdout, messages go to stderr, and control characters are made visible.

Much of the printed text was written by a model or by a stranger: answers, reasons, bodies of poison messages. An escape
sequence in it could change the window's title, hide lines, or send input in the user's name. So control characters are
printed as visible text.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from textwrap import indent
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters of both ranges, marks that reorder a line, and lone surrogates. 0x9b alone starts an escape sequence.
Tab and newline are allowed."""

LATEST_MS = 253_402_300_799_999
"""The end of the year 9999."""

TIMES = {
    "at_ms": "at",
    "created_ms": "created_at",
    "dead_ms": "dead_at",
    "deadline_ms": "deadline_at",
    "ended_ms": "ended_at",
    "ends_by_ms": "ends_by",
    "finished_ms": "finished_at",
    "held_since_ms": "held_since",
    "seen_ms": "seen_at",
    "since_ms": "since",
    "started_ms": "started_at",
    "until_ms": "until",
}
"""Name of a time in stored records -> its name in `--json`, where it is ISO 8601. Durations keep their `_ms`."""

MADE_ID = re.compile(r"\b[a-z]+-[0-9a-f]{32}\b")
SHORT_ID_CHARS = 20
"""The name of the kind, the millisecond, and 12 bits that are random. Two ids of one millisecond rarely share them."""


def say(text: str) -> None:
    """Print a message on stderr."""
    click.echo(printable_lines(text), err=True)


def print_json(document: object) -> None:
    """Print one JSON document on stdout."""
    click.echo(_safe_json(document, indent=2))


def print_json_line(document: object) -> None:
    """Print one line of JSON Lines on stdout."""
    click.echo(_safe_json(document, separators=(",", ":")))


def stream_json(members: Iterable[tuple[str, object]]) -> None:
    """Print one JSON document on stdout, like `print_json`, member by member. An iterator is printed item by item as a list."""
    separator = "{\n"
    for name, value in members:
        click.echo(f"{separator}  {json.dumps(name)}: ", nl=False)
        if isinstance(value, Iterator):
            _stream_list(value)
        else:
            click.echo(indent(_safe_json(value, indent=2), "  ").lstrip(), nl=False)
        separator = ",\n"
    click.echo("\n}")


def _stream_list(items: Iterator[object]) -> None:
    separator = "[\n"
    for item in items:
        click.echo(separator + indent(_safe_json(item, indent=2), "    "), nl=False)
        separator = ",\n"
    click.echo("[]" if separator == "[\n" else "\n  ]", nl=False)


def _safe_json(document: object, **style: Any) -> str:
    # Unsafe characters occur only inside strings. There a JSON escape means the same, so the document does not change.
    text = json.dumps(document, ensure_ascii=False, **style)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def printable_lines(text: str) -> str:
    """Return the text with every control character except newline and tab made visible."""
    return _UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))


def printable(text: str, limit: int | None = None) -> str:
    """Return the text on one line, with control characters made visible. Longer texts are cut to `limit` characters."""
    line = " ".join(printable_lines(text).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def print_text(text: str) -> None:
    """Print a model's or a user's text as data: unchanged into a file or a pipe, made visible on a terminal."""
    click.echo(printable_lines(text) if sys.stdout.isatty() else text.encode("utf-8", "backslashreplace"))


def document(record: BaseModel) -> dict[str, Any]:
    """Return a stored record as `--json` shows it."""
    plain: dict[str, Any] = _format_times(record.model_dump(mode="json"))
    return plain


def _format_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            TIMES.get(key, key): iso(item) if key in TIMES and isinstance(item, int) else _format_times(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_format_times(item) for item in value]
    return value


def iso(ms: int) -> str:
    """Format a time as ISO 8601 in UTC, with milliseconds. A number that is no time of this calendar stays a number."""
    if not 0 <= ms <= LATEST_MS:
        return f"{ms} ms"
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(ms: float) -> str:
    """Format a duration in at most six characters: `8 ms`, `1.24 s`, `3m 20s`, `2h 05m`, `4d 03h`."""
    if ms < 1_000:
        return f"{ms:.0f} ms"
    seconds = ms / 1_000
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, left_s = divmod(round(seconds), 60)
    hours, left_min = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes}m {left_s:02d}s"
    return f"{hours}h {left_min:02d}m" if hours < 48 else f"{hours // 24}d {hours % 24:02d}h"


def count(number: int) -> str:
    """Format a number in at most five characters: `940`, `12.3k`, `1.2M`."""
    if number < 1_000:
        return str(number)
    return f"{number / 1_000:.1f}k" if number < 999_950 else f"{number / 1_000_000:.1f}M"


def pluralize(number: int, one: str, many: str = "") -> str:
    """Format a number of things: `1 tool call`, `2 tool calls`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def shorten_ids(cell: str) -> str:
    """Shorten the ids that Midwatch made. Every command takes the short form. An id that a user chose stays whole."""
    return MADE_ID.sub(lambda found: found[0][:SHORT_ID_CHARS], cell)
