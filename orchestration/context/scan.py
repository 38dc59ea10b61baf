"""Find the pieces of a text that could be facts, each with label and value. JSON is walked, other text is tokenized.

The time is linear in the text, even if a tool returns hostile text: every pattern is bounded, and none is nested.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

MAX_PIECE_CHARS = 300
"""A longer piece is not an identifier. Signed URLs and cursors are shorter."""

MAX_SCALAR_CHARS = 80
"""Longest JSON string that is one piece, such as a name, a title or a key. A longer one is read as text."""

MAX_NESTED = 4
"""How many levels of JSON inside JSON strings are decoded. Tool servers nest JSON like that."""

MAX_LABEL_CHARS = 40

FIRST_ROWS, LAST_ROWS = 2_000, 500
"""Entries that are walked at both ends of a longer JSON list or object. The facts ledger has no room for the rest."""

FIRST_CHARS, LAST_CHARS = 800_000, 200_000
"""Characters that are read at both ends of a longer text."""

_RUN = re.compile(r"[^\s\"'`<>()\[\]{},;|=\\]{2,2000}")
_SEAMS = "\n\t \"'`<>()[]{},;|=\\"
_SEAM = re.compile(f"[{re.escape(_SEAMS)}]")
_NAME = re.compile(
    r"(?<![\w-])[^\W\d_a-z][\w'’.&-]{1,30}"
    r"(?: (?:(?:of|de|van|von|der|the|and|&) )?(?:[^\W\d_a-z][\w'’.&-]{0,30}|\d{1,4}(?!\w))){1,4}"
)
_QUOTED = re.compile(r"\"([^\"\\\n]{2,60})\"|`([^`\n]{2,60})`|(?<!\w)'([^'\\\n]{2,60})'(?!\w)")
_LABELLED = re.compile(
    r"(?<![\w-])([A-Za-z_][\w-]{1,30}|[A-Z][a-z]{1,15} (?:ID|Id|[Nn]umber|[Nn]ame|[Cc]ode))"
    r"(?:[\"']:|: |:(?=[\"'#])|=) ?[\"']?([\w#$./@:+-]{2,80})"
)
_LABEL = re.compile(r"[A-Za-z_][\w .-]{0,39}")
_SPACE = re.compile(r"\s")
_UNSAYABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_EDGES = ".,:;!?…·-–—_&*"

Row = TypeVar("Row", bound=Any)

Piece = tuple[str, str, bool]
"""Label, value, and whether the value is a whole field. Otherwise it is a token of a text."""


def pieces(text: str) -> Iterator[Piece]:
    """Every piece of the text. Its label is its JSON key, or the word before the colon."""
    yield from _of_text("", text, MAX_NESTED)


def _of_text(label: str, text: str, depth: int) -> Iterator[Piece]:
    start = text[:64].lstrip()[:1]
    if depth and start in ("{", "[") and len(text) > 2:
        try:
            value = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
        except (ValueError, RecursionError):
            pass
        else:
            yield from _of_json(label, value, depth - 1)
            return
    yield from _tokens(text)


def _of_json(label: str, value: object, depth: int) -> Iterator[Piece]:
    """Walk depth first, in the order of the text, without recursion. The parser limits the nesting."""
    todo: list[tuple[str, object]] = [(label, value)]
    while todo:
        label, value = todo.pop()
        if isinstance(value, str):
            if _is_scalar(value):
                yield label, value.strip(), True
            else:
                yield from _of_text(label, value, depth)
        elif isinstance(value, dict):
            rows = _ends(list(value.items()))
            yield from ((label, key, True) for key, _ in rows if any(map(str.isdigit, key[:MAX_PIECE_CHARS])))
            todo.extend([(_label(key), one) for key, one in rows][::-1])
        elif isinstance(value, list):
            todo.extend((label, one) for one in reversed(_ends(value)))


def _ends(rows: list[Row]) -> list[Row]:
    return rows if len(rows) <= FIRST_ROWS + LAST_ROWS else rows[:FIRST_ROWS] + rows[-LAST_ROWS:]


def _is_scalar(value: str) -> bool:
    if value[:1] in ("{", "["):
        return False
    size = len(value)
    return (size <= MAX_SCALAR_CHARS and "\n" not in value) or (size <= MAX_PIECE_CHARS and not _SPACE.search(value))


def _tokens(text: str) -> Iterator[Piece]:
    if len(text) > FIRST_CHARS + LAST_CHARS:
        text = _both_ends(text)
    for found in _LABELLED.finditer(text):
        yield _label(found[1]), _trim(found[2]), False
    for quoted in _QUOTED.finditer(text):
        yield "", (quoted[1] or quoted[2] or quoted[3]).strip(), False
    for name in _NAME.finditer(text):
        yield "", name[0].strip(_EDGES), False
    for run in dict.fromkeys(_RUN.findall(text)):
        piece = _trim(run)
        yield "", piece, False
        head, colon, tail = piece.partition(":")
        if colon and tail and head[0].isalpha() and not tail.startswith("/"):  # `name:value`, `file:line`
            yield "", _trim(head), False
            yield "", _trim(tail), False


def _trim(piece: str) -> str:
    """The piece without punctuation at its ends. A number keeps its minus."""
    bare = piece.strip(_EDGES)
    return f"-{bare}" if bare[:1].isdigit() and f"-{bare}" in piece[: len(bare) + 1] else bare


def _both_ends(text: str) -> str:
    """The beginning and the end of a long text, cut between two pieces: half an identifier would be wrong."""
    head = max(text.rfind(seam, FIRST_CHARS - MAX_PIECE_CHARS, FIRST_CHARS) for seam in _SEAMS)
    tail = _SEAM.search(text, len(text) - LAST_CHARS)
    return f"{text[: max(0, head)]}\n{text[tail.start() :] if tail else ''}"


def clean(text: str) -> str:
    """Put a text on one line, without control characters and lone surrogates, so that it is safe to store, send and quote."""
    return " ".join(_UNSAYABLE.sub(" ", text).split())


def _label(key: str) -> str:
    """The key as a label. Empty if the key is prose instead of a field's name."""
    return key if len(key) <= MAX_LABEL_CHARS and _LABEL.fullmatch(key) else ""
