"""Count needed and kept facts: identifiers in a call's arguments that come from messages outside the window.

An **identifier** is, in the arguments of a tool call:

1. a whole value without white space, 4 to 200 characters, that holds a digit or one of `@ . _ - / : #`
   (`sara_doe`, `report.xlsx`, `2024-05-01`, `main/src`), or a number of four digits and more;
2. inside a longer text: a web address, an e-mail address, an absolute path with two parts and more, or a run of letters
   and digits (joined by `- _ . : #`) of four characters and more with a digit in it.

A call **needs** an identifier if an earlier message contains it, but no unchanged message of the window, no tool and not the
system prompt does. It is **kept** if the window contains it in another place: in the memory, in a stub, or in the rest of a
cut message. An identifier that no earlier message contains comes from the model and is not counted.

This definition is independent of the compactor's definition of a fact, so that one can judge the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from midwatch.schemas.message import AssistantMessage, Message, Text, ToolCall, ToolMessage

MIN_CHARS, MAX_CHARS = 4, 200

_WHOLE = re.compile(r"\S*[\d@._\-/:#]\S*")
_INSIDE = re.compile(
    r"https?://[^\s\"'<>()\[\]{}\\,]+"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|(?<![\w/.])/[\w.-]+(?:/[\w.-]+)+"
    r"|(?=[A-Za-z_.:#-]*\d)[A-Za-z0-9]+(?:[-_.:#][A-Za-z0-9]+)*"
)


@dataclass(frozen=True)
class Tally:
    """The counts of one or more calls."""

    named: int = 0
    """Identifiers in arguments that earlier messages contain."""
    needed: int = 0
    """Named identifiers that no unchanged message of the window contains."""
    kept: int = 0
    """Needed identifiers that the window contains in another place."""

    @property
    def at_hand(self) -> int:
        """Named identifiers that the window contains in any form."""
        return self.named - self.needed + self.kept

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.named + other.named, self.needed + other.needed, self.kept + other.kept)


def tally(calls: Iterable[ToolCall], history: Iterable[str], window: Iterable[str], fixed: str) -> Tally:
    """Count the identifiers that these calls needed from earlier messages, and those that the window kept.

    Args:
        calls: The calls of one model turn.
        history: Text of every message before the turn (see `text_of`).
        window: Text of every message in the turn's window.
        fixed: System prompt and tools.

    """
    return tally_names({name for call in calls for name in identifiers(call)}, history, window, fixed)


def names_in(text: str) -> set[str]:
    """Return the identifiers in a text of the model, by rule 2."""
    return set(_inside(text))


def tally_names(names: Iterable[str], history: Iterable[str], window: Iterable[str], fixed: str) -> Tally:
    """Like `tally`, for given identifiers."""
    originals, there = set(history), set(window)
    shown = [text for text in there if text in originals] + [fixed]
    gone = [text for text in originals if text not in there]
    changed = [text for text in there if text not in originals]
    total = Tally()
    for name in names:
        if contain(shown, name):
            total += Tally(named=1)
        elif contain(gone, name):
            total += Tally(named=1, needed=1, kept=int(contain(changed, name)))
    return total


def identifiers(call: ToolCall) -> set[str]:
    """Return all identifiers in the arguments. Arguments that are not JSON are read as one text."""
    try:
        arguments = json.loads(call.raw_arguments or "{}")
    except (ValueError, RecursionError):
        return set(_inside(call.raw_arguments))
    return {name for leaf in _leaves(arguments) for name in _of_leaf(leaf)}


def contain(texts: Iterable[str], name: str) -> bool:
    """Does one of the texts contain the name, and not only as a part of a longer word or number?"""
    return any(name in text and _bounded(name).search(text) for text in texts)


def text_of(message: Message) -> str:
    """Return all text of a message. Arguments are also decoded, so values that are escaped in JSON are found."""
    if isinstance(message, ToolMessage):
        return message.content
    if not isinstance(message, AssistantMessage):
        return message.text
    lines = [part.text for part in message.parts if isinstance(part, Text)]
    for call in message.tool_calls:
        lines += [call.raw_arguments, *_decode_values(call.raw_arguments)]
    return "\n".join(lines)


def _decode_values(raw_arguments: str) -> list[str]:
    try:
        return [str(leaf) for leaf in _leaves(json.loads(raw_arguments or "{}"))]
    except (ValueError, RecursionError):
        return []


def _leaves(value: object) -> Iterator[str | int | float]:
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
        elif isinstance(one, (str, int, float)) and not isinstance(one, bool):
            yield one


def _of_leaf(leaf: str | int | float) -> Iterator[str]:
    if not isinstance(leaf, str):
        if sum(char.isdigit() for char in str(leaf)) >= MIN_CHARS:
            yield str(leaf)
    elif MIN_CHARS <= len(leaf) <= MAX_CHARS and _WHOLE.fullmatch(leaf):
        yield leaf
    else:
        yield from _inside(leaf)


def _inside(text: str) -> Iterator[str]:
    for match in _INSIDE.finditer(text):
        name = match[0].rstrip(".,;:")
        if MIN_CHARS <= len(name) <= MAX_CHARS:
            yield name


def _bounded(name: str) -> re.Pattern[str]:
    """Return a pattern for the name outside longer words and numbers. `re` caches the latest 512 patterns."""
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])")
