"""Facts needed and kept: what a call's arguments name that was said only where the window does not show it any more.

An **identifier** is, in the arguments of a tool call:

1. a whole value without white space, 4 to 200 characters, that holds a digit or one of `@ . _ - / : #`
   (`sara_doe`, `report.xlsx`, `2024-05-01`, `main/src`), or a number of four digits and more;
2. inside a longer text: a web address, an e-mail address, an absolute path with two parts and more, or a run of letters
   and digits (joined by `- _ . : #`) of four characters and more with a digit in it.

It is **needed** by a call when it was said before, and no message that says it stands in the window as it was said, nor
do the system prompt and the tools say it. It is **kept** when the window says it all the same: in the memory, in a stub,
in what is left of a cut message. An identifier that was never said before is the model's own and counts for nothing.

Written without a look at the compactor's own notion of a fact, so that one judges the other.
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
    """Of one call, or of several together."""

    named: int = 0
    """Identifiers in arguments that were said before."""
    needed: int = 0
    """Of those: said only where the window does not show it as it was said."""
    kept: int = 0
    """Of those: the window says it all the same."""

    @property
    def at_hand(self) -> int:
        """Of all that were named: what the window says, one way or the other."""
        return self.named - self.needed + self.kept

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.named + other.named, self.needed + other.needed, self.kept + other.kept)


def tally(calls: Iterable[ToolCall], history: Iterable[str], window: Iterable[str], fixed: str) -> Tally:
    """What these calls needed of what was said before them, and what of it the window still says.

    Args:
        calls: The calls of one model turn.
        history: Text of every message before the turn (see `said`), as it came.
        window: Text of every message that the model was sent for this turn.
        fixed: System prompt and tools.

    """
    originals, there = set(history), set(window)
    shown = [text for text in there if text in originals] + [fixed]
    gone = [text for text in originals if text not in there]
    changed = [text for text in there if text not in originals]
    total = Tally()
    for name in {name for call in calls for name in identifiers(call)}:
        if says(shown, name):
            total += Tally(named=1)
        elif says(gone, name):
            total += Tally(named=1, needed=1, kept=int(says(changed, name)))
    return total


def identifiers(call: ToolCall) -> set[str]:
    """All that the arguments name; those that are not JSON are read as one text."""
    try:
        arguments = json.loads(call.raw_arguments or "{}")
    except (ValueError, RecursionError):
        return set(_inside(call.raw_arguments))
    return {name for leaf in _leaves(arguments) for name in _of_leaf(leaf)}


def says(texts: Iterable[str], name: str) -> bool:
    """Whether one of the texts has the name, not as a part of a longer word or number."""
    return any(name in text and _bounded(name).search(text) for text in texts)


def said(message: Message) -> str:
    """All that a message says, arguments decoded too: what was escaped in JSON is found as the value it is."""
    if isinstance(message, ToolMessage):
        return message.content
    if not isinstance(message, AssistantMessage):
        return message.text
    lines = [part.text for part in message.parts if isinstance(part, Text)]
    for call in message.tool_calls:
        lines += [call.raw_arguments, *_decoded(call.raw_arguments)]
    return "\n".join(lines)


def _decoded(raw_arguments: str) -> list[str]:
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
    """Not inside a longer word or number; `re` keeps the latest 512 of them."""
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])")
