"""Mark sentences that repeat a tool's words as untrusted, before they enter the summary or the open items."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from midwatch.orchestration.context.render import UNTRUSTED
from midwatch.schemas.message import Message, ToolMessage, UserMessage

WINDOW_WORDS = 4
"""A sentence is untrusted if it has this many words in a row in common with a tool's result, but not with the user's text."""

_WORD = re.compile(r"\w{1,64}")

Windows = frozenset[tuple[str, ...]]


def mark_untrusted(texts: Iterable[str], messages: Sequence[Message]) -> list[str]:
    """Mark each text that repeats a tool's words, unless the user used the same words."""
    texts = list(texts)
    windows = [_windows(text) for text in texts]
    searched = frozenset().union(*windows) if windows else frozenset()
    from_users = _found(searched, (message.text for message in messages if isinstance(message, UserMessage)))
    tainted = (
        _found(searched, (message.content for message in messages if isinstance(message, ToolMessage))) - from_users
    )
    return [
        f"{UNTRUSTED} {text}" if own & tainted and not text.startswith(UNTRUSTED) else text
        for text, own in zip(texts, windows, strict=True)
    ]


def _found(searched: Windows, sources: Iterable[str]) -> Windows:
    found: set[tuple[str, ...]] = set()
    for source in sources if searched else ():  # don't read megabytes if there is nothing to search
        words = _words(source)
        found |= searched.intersection(_grams(words, WINDOW_WORDS))
        found |= searched.intersection(zip(words, strict=True))
    return frozenset(found)


def _windows(text: str) -> Windows:
    """Every run of four words. For scripts without spaces, also every long word."""
    words = _words(text)
    alone = {(word,) for word in words if len(word) >= WINDOW_WORDS and not word.isascii()}
    return frozenset(_grams(words, min(WINDOW_WORDS, max(1, len(words))))) | alone


def _grams(words: list[str], size: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(size)), strict=False)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
