"""Find the facts of a message: identifiers, amounts, dates, names and paths, each with its origin."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from midwatch.orchestration.context.scan import MAX_PIECE_CHARS, clean, pieces
from midwatch.schemas.message import AssistantMessage, Message, ToolMessage, UserMessage

MAX_ALIKE = 2_000
"""Most facts of one kind and field from one message. The facts ledger has no room for more."""

MAX_WORDS = 6
"""A value with more words is prose. Prose is not kept as a fact; `recall` can page it."""

DAY_CHARS = 10
"""Length of the day in an ISO date. The day of a timestamp is kept as a separate fact. A timestamp with a fraction of a second
was made by a server, and is worth only as much as an amount."""


class Kind(IntEnum):
    """The kind of a value, by its form. The number is its worth, which decides what is kept if there is too little room."""

    WORD = 1
    NAME = 3
    AMOUNT = 4
    CODE = 5
    DATE = 6
    ID = 7
    SAID = 9
    """A decision or a text of the user, verbatim."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One value, verbatim, with its origin."""

    value: str
    kind: Kind
    label: str
    group: int
    source: str
    untrusted: bool
    used: bool = False
    whole: bool = False
    """True if the value was a whole field, not a word in a text."""


_DATE = re.compile(
    r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?)?"
    r"|\d{1,2}[./]\d{1,2}[./]\d{2,4}|\d{4}/\d{1,2}/\d{1,2}|\d{1,2}:\d{2}(:\d{2})?"
)
_AMOUNT = re.compile(
    r"[-+]?[$€£¥]?[-+]?\d{1,3}(,\d{3})+(\.\d{1,20})?%?|[-+]?[$€£¥]?[-+]?\d{1,40}([.]\d{1,20})?([eE][-+]?\d{1,3})?[%€£¥$]?"
)
_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[^\W\d_]")
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(\.[\w-]{1,63}){1,5}")
_FILE = re.compile(r"[\w@+-][\w.@+-]{0,120}\.[A-Za-z][A-Za-z0-9]{0,5}")
_PATH = re.compile(r"(?:[A-Za-z]:|~|\.{1,2})?[\w.@%+:~#-]{0,255}[/\\][^\s\"'<>|]{1,255}")
_CODE = re.compile(r"[A-Z][A-Z0-9&.^=/-]{1,11}")
_JOINED = re.compile(r"[^\W_]+(?:[_-][^\W_]+)+|_\w+|\w+[a-z][A-Z]\w*|[\w-]+(?:\.[\w-]+)+")
_BROKEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_EMPTY = frozenset(
    ("true", "false", "null", "none", "nan", "undefined", "n/a", "infinity", "-infinity", "yes", "no", "ok")
)


def kind_of(value: str, whole: bool) -> Kind | None:
    """The kind of a value, or None if it is not worth keeping.

    Args:
        value: One piece of a text.
        whole: True if it was a whole field (or in quotes), so that even plain words may be a name.

    """
    size = len(value)
    if size < 2 or size > MAX_PIECE_CHARS or value.casefold() in _EMPTY or _BROKEN.search(value):
        return None
    if _DIGIT.search(value):
        return _with_digits(value, whole)
    if " " in value:
        words = value.count(" ") + 1
        return Kind.NAME if words <= MAX_WORDS and _LETTER.search(value) else None
    if not _LETTER.search(value):
        return None
    if _identifies(value):
        return Kind.ID
    if _CODE.fullmatch(value):
        return Kind.CODE
    if _JOINED.fullmatch(value):
        return Kind.CODE if whole or "-" not in value else Kind.WORD
    if whole:
        return Kind.WORD if value.islower() else Kind.NAME
    return None


def _identifies(value: str) -> bool:
    if "@" in value and _EMAIL.fullmatch(value):
        return True
    if "://" in value:
        return True
    if ("/" in value or "\\" in value) and _PATH.fullmatch(value):
        return True
    return "." in value and _FILE.fullmatch(value) is not None


def _with_digits(value: str, whole: bool) -> Kind | None:
    if _DATE.fullmatch(value):
        return Kind.AMOUNT if "." in value[DAY_CHARS:] else Kind.DATE
    if _AMOUNT.fullmatch(value):
        digits = sum(map(str.isdigit, value))
        if digits >= 3:
            return Kind.AMOUNT
        return Kind.WORD if whole or value[0] in "$€£¥" or value[-1] in "%$€£¥" else None
    if " " in value:
        return Kind.NAME if value.count(" ") < MAX_WORDS else None
    if not _LETTER.search(value) and not value.startswith("#"):  # `1/19`, `3-1`, a phone number
        digits = sum(map(str.isdigit, value))
        return Kind.ID if digits >= 7 else Kind.AMOUNT if digits >= 2 else None
    return Kind.ID


def facts_of(messages: Sequence[Message]) -> Iterator[Fact]:
    """Every fact of the messages, in order. A value occurs once for each message."""
    for message in messages:
        if isinstance(message, UserMessage):
            yield from _facts(message.text, message.group, "user", untrusted=False)
        elif isinstance(message, ToolMessage):
            yield from _facts(message.content, message.group, clean(message.tool)[:64], untrusted=True)
        elif isinstance(message, AssistantMessage):
            yield from _facts(message.text, message.group, "assistant", untrusted=False)
            for call in message.tool_calls:
                yield from _facts(call.raw_arguments, message.group, "assistant", untrusted=False, used=True)


def _facts(text: str, group: int, source: str, *, untrusted: bool, used: bool = False) -> Iterator[Fact]:
    seen: set[str] = set()
    alike: Counter[tuple[str, Kind]] = Counter()
    for label, value, whole in pieces(text):
        if value in seen:
            continue
        seen.add(value)
        kind = kind_of(value, whole)
        if kind is None or alike[label, kind] >= MAX_ALIKE:
            continue
        alike[label, kind] += 1
        if (
            len(value) > DAY_CHARS
            and value[4:5] == "-"
            and (day := value[:DAY_CHARS]) not in seen
            and _DATE.fullmatch(day)
        ):
            seen.add(day)
            yield Fact(day, Kind.DATE, label, group, source, untrusted, used, whole)
        yield Fact(value, kind, label, group, source, untrusted, used, whole)
