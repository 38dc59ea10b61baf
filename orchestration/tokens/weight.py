"""The weight of a text: about how many tokens it has, computed from the kinds of its characters.

A byte of prose is a fifth of a token, a byte of base64 two thirds. So a mean over bytes is wrong by half when a tool returns a
new kind of text. The weights below were fitted to the mean of two vendors' tokenizers, on halves of recorded sessions and on
generated tables, ids and languages: see docs/context.md. A model's own token count is a multiple of the weight: `estimate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from midwatch.schemas.contract import canonical_json
from midwatch.schemas.message import AssistantMessage, Message, Opaque, Text, ToolMessage

FRAME = 2.0
"""Added for each text: the marks that a chat format puts around it."""

LOWER, UPPER, DIGIT, SPACE, LINE, MARK = b"a", b"A", b"9", b" ", b"n", b"."
LATIN, WIDE, RARE, CONTINUED = b"2", b"3", b"4", b"c"
"""The letter that replaces each kind of character. The last four kinds are bytes of UTF-8: the first byte of a character of two,
three and four bytes, and every byte after the first."""

SAMPLES, SAMPLE_CHARS = 64, 2_048
"""Number and length of the slices that are weighed instead of a text of megabytes."""

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
"""Tokens for each character of a kind. The pairs correct this: a change from lower to upper case within a word, as in ids and
base64, adds tokens; a pair of spaces or marks subtracts some, since a run of them is one token."""

STARTS = {b" a": 0.30, b" 9": 0.27, b"9a": 1.45}
"""Tokens for each place where a word or a number begins, or where letters follow digits. Here upper case counts as lower case,
and a mark as a space."""


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
    """Weigh a text. The weight of a conversation is the sum of the weights of its texts."""
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
    """Weigh everything of a message that is sent."""
    return sum(map(weigh, _texts(message)))


def weigh_all(messages: Iterable[Message]) -> int:
    """Weigh a conversation."""
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
            if part.provider:  # a part without a provider is sent to no model
                yield canonical_json(part.raw)
        else:
            yield from (part.id, part.name, part.raw_arguments)
