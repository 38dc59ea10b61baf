"""What was said that a list of values does not carry: the user's own words, and what the assistant decided."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from midwatch.orchestration.context.facts import Fact, Kind
from midwatch.orchestration.context.scan import clean
from midwatch.orchestration.context.taint import marked
from midwatch.schemas.message import AssistantMessage, Message, UserMessage

SAID = ("said", "decided")
"""Labels of such entries."""

SAID_SHARE = 0.2
"""At most this part of the room: sentences are long, and identifiers can't be guessed."""

MAX_SENTENCE_CHARS = 240

MAX_SCANNED_CHARS = 20_000
"""Of one message; what comes later in so long a text is a document, not a decision."""

_SENTENCE = re.compile(r"[^.!?\n。！？]{1,400}[.!?。！？]?")
_DECIDED = re.compile(
    r"\b(decid\w{1,5}|chose|chosen|choos\w{1,4}|agreed|approved|rejected|confirmed|instead of|going with|opted|must not|"
    r"should not|will not|won't|never|root cause|turns out|conclu\w{1,6})\b",
    re.IGNORECASE,
)


def said_by(messages: Sequence[Message]) -> Iterator[Fact]:
    """Short user texts whole (of long ones the beginning), and the assistant's sentences that decide something.

    A sentence of the assistant that repeats a tool's words is left out: it would lend them its own standing.
    """
    for message in messages:
        if isinstance(message, UserMessage):
            text = clean(message.text[:MAX_SENTENCE_CHARS])
            if text:
                yield Fact(text, Kind.SAID, "said", message.group, "user", untrusted=False)
    decided = [
        (message.group, sentence)
        for message in messages
        if isinstance(message, AssistantMessage)
        for sentence in sentences(message.text)
        if _DECIDED.search(sentence)
    ]
    for (group, sentence), shown in zip(decided, marked((one for _, one in decided), messages), strict=True):
        if shown == sentence:
            yield Fact(sentence, Kind.SAID, "decided", group, "assistant", untrusted=False)


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text's beginning, each bounded and on one line."""
    for found in _SENTENCE.finditer(text[:MAX_SCANNED_CHARS]):
        sentence = clean(found[0][:MAX_SENTENCE_CHARS])
        if len(sentence) > 3:
            yield sentence
