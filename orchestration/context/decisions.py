"""Find statements worth keeping verbatim: the user's own words, and the assistant's decisions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from midwatch.orchestration.context.facts import Fact, Kind
from midwatch.orchestration.context.scan import clean
from midwatch.orchestration.context.taint import mark_untrusted
from midwatch.schemas.message import AssistantMessage, Message, UserMessage

SAID = ("said", "decided")
"""Labels of statements in the facts ledger."""

STATEMENT_SHARE = 0.2
"""Largest share of a memory that statements may take. The rest is for identifiers: a model can't guess them."""

MAX_SENTENCE_CHARS = 240

MAX_SCANNED_CHARS = 20_000
"""Longest part of a message that is searched for decisions. Later text belongs to a document."""

_SENTENCE = re.compile(r"[^.!?\n。！？]{1,400}[.!?。！？]?")
_DECIDED = re.compile(
    r"\b(decid\w{1,5}|chose|chosen|choos\w{1,4}|agreed|approved|rejected|confirmed|instead of|going with|opted|must not|"
    r"should not|will not|won't|never|root cause|turns out|conclu\w{1,6})\b",
    re.IGNORECASE,
)


def find_statements(messages: Sequence[Message]) -> Iterator[Fact]:
    """Find the beginning of each user text, and the assistant's sentences that decide something.

    A sentence of the assistant that repeats a tool's words is left out. Otherwise the tool's words would look trusted.
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
    for (group, sentence), shown in zip(decided, mark_untrusted((one for _, one in decided), messages), strict=True):
        if shown == sentence:
            yield Fact(sentence, Kind.SAID, "decided", group, "assistant", untrusted=False)


def sentences(text: str) -> Iterator[str]:
    """The sentences at a text's beginning, each of limited length and on one line."""
    for found in _SENTENCE.finditer(text[:MAX_SCANNED_CHARS]):
        sentence = clean(found[0][:MAX_SENTENCE_CHARS])
        if len(sentence) > 3:
            yield sentence
