"""What a text weighs: about how many tokens it is, told from the kinds of characters it is made of.

A byte of prose is a fifth of a token, a byte of base64 two thirds: a mean over bytes is wrong by its half whenever a tool returns
another kind of text than before. The weights below were fitted on halves of recorded sessions and of made tables, ids and
languages, to the mean of two vendors' tokenizers; see docs/context.md. A model's own tokens are a multiple of them: `estimate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from midwatch.schemas.contract import canonical_json
from midwatch.schemas.message import AssistantMessage, Message, Opaque, Text, ToolMessage

FRAME = 2.0
"""Of each text: the marks that a chat format puts around it."""

LOWER, UPPER, DIGIT, SPACE, LINE, MARK = b"a", b"A", b"9", b" ", b"n", b"."
LATIN, WIDE, RARE, CONTINUED = b"2", b"3", b"4", b"c"
"""Kinds of characters, each with the letter that stands for it. The last four are bytes of UTF-8: the first one of a character of
two, three and four bytes, and those that follow it."""

SAMPLES, SAMPLE_CHARS = 64, 2_048
"""Of a text of megabytes: slices from all over it are weighed, not the whole."""

WEIGHTS = {
    LOWER: 0.06,
    UPPER: 0.34,
    DIGIT: 0.26,
    SPACE: 0.44,
    LINE: 0.80,
    MARK: 0.91,
    LATIN: 0.26,
    WIDE: 0.63,
    RARE: 2.00,
    LOWER + UPPER: 1.37,
    SPACE + SPACE: -0.67,
    MARK + MARK: -1.03,
}
"""Tokens for each character; for each change of case within a word, where ids and base64 break; and, negative, for pairs of
spaces or marks: a run of them is one token."""

STARTS = {b" a": 0.30, b" 9": 0.27, b"9a": 1.45}
"""Tokens for each place where a word or a number begins, or letters follow digits, whatever their case and the mark in
front."""


def _kinds() -> bytes:
    table = bytearray(MARK * 128 + CONTINUED * 64 + LATIN * 32 + WIDE * 16 + RARE * 16)
    table[ord("a") : ord("z") + 1] = LOWER * 26
    table[ord("A") : ord("Z") + 1] = UPPER * 26
    table[ord("0") : ord("9") + 1] = DIGIT * 10
    table[ord(" ")] = SPACE[0]
    for line in "\t\n\r":
        table[ord(line)] = LINE[0]
    return bytes(table)


_KINDS = _kinds()
_COARSE = bytes.maketrans(UPPER + MARK, LOWER + SPACE)


def weigh(text: str) -> int:
    """The weight of a text. It is a sum, so a conversation weighs what its texts weigh."""
    if not text:
        return 0
    if len(text) > 2 * SAMPLES * SAMPLE_CHARS:
        every = len(text) // SAMPLES
        sample = "".join(text[start : start + SAMPLE_CHARS] for start in range(0, every * SAMPLES, every))
        return round(weigh(sample) * len(text) / len(sample))
    kinds = text.encode(errors="backslashreplace").translate(_KINDS)
    coarse = kinds.translate(_COARSE)
    tokens = FRAME + sum(weight * kinds.count(kind) for kind, weight in WEIGHTS.items())
    return round(tokens + sum(weight * coarse.count(place) for place, weight in STARTS.items()))


def weigh_message(message: Message) -> int:
    """The weight of all of a message that is sent."""
    return sum(map(weigh, _texts(message)))


def weigh_all(messages: Iterable[Message]) -> int:
    """The weight of a conversation."""
    return sum(map(weigh_message, messages))


def _texts(message: Message) -> Iterator[str]:
    if isinstance(message, ToolMessage):
        yield message.call_id
        yield message.content
        return
    if not isinstance(message, AssistantMessage):
        yield message.text
        return
    for part in message.parts:
        if isinstance(part, Text):
            yield part.text
        elif isinstance(part, Opaque):
            yield canonical_json(part.raw)
        else:
            yield from (part.id, part.name, part.raw_arguments)
