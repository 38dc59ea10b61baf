"""Usage figures: an estimate that is the same for the same request, and a prompt cache that remembers prefixes.

Four bytes are one token. That is no vendor's truth, but it is linear in what was sent, and a count asked for beforehand
equals the usage reported afterwards. The split into cached and fresh tokens depends on what this server saw before; the
sum does not.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator

from midwatch.schemas.model import Usage
from midwatch.workers.simulator.brains.brain import Conversation
from midwatch.workers.simulator.vendor_formats.jsontext import dump
from midwatch.workers.simulator.vendor_formats.vendor_format import Prompt

BYTES_PER_TOKEN = 4
SMALLEST_CACHED_TOKENS = 1_024
"""Shorter prefixes are not cached: the vendors' own floor for most models."""
REMEMBERED_PREFIXES = 50_000


def tokens(size_bytes: int) -> int:
    """The estimate, rounded up."""
    return -(-size_bytes // BYTES_PER_TOKEN)


def pieces(conversation: Conversation) -> Iterator[bytes]:
    """What is paid for: system prompt and tools, then each turn."""
    offers = [(tool.name, tool.description, tool.input_schema) for tool in conversation.tools]
    yield f"{conversation.model}\n{conversation.system}\n{dump(offers) if offers else ''}".encode("utf-8", "replace")
    for turn in conversation.turns:
        calls = "".join(f"{call.id}{call.name}{call.arguments}" for call in turn.calls)
        yield f"{turn.role}:{turn.text}{calls}".encode("utf-8", "replace")


class Meter:
    """Counts prompts, and what of each was seen before."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def count(self, conversation: Conversation) -> int:
        """Input tokens of a request."""
        return sum(tokens(len(piece)) for piece in pieces(conversation))

    def read(self, prompt: Prompt, *, remember: bool = True) -> Usage:
        """Usage of reading the prompt: the longest remembered prefix is cached, and what is asked for is remembered.

        `remember=False` only looks, for a request that may be refused yet.
        """
        total = cached = written = 0
        marks = prompt.breakpoints
        last = max(marks, default=-1) if marks is not None else len(prompt.conversation.turns)
        running = hashlib.blake2b(digest_size=16)
        for number, piece in enumerate(pieces(prompt.conversation)):
            total += tokens(len(piece))
            if number > last:
                continue
            running.update(piece)
            if total < SMALLEST_CACHED_TOKENS:
                continue
            prefix = running.digest()
            if prefix in self._seen:
                cached = total
                if remember:
                    self._seen.move_to_end(prefix)
            if marks is None or number in marks:
                if remember:
                    self._seen[prefix] = None
                written = total - cached if marks is not None else 0
        while len(self._seen) > REMEMBERED_PREFIXES:
            self._seen.popitem(last=False)
        return Usage(input_tokens=total, cached_tokens=cached, cache_write_tokens=written)


def spoken(text: str, calls: Iterator[tuple[str, str]]) -> int:
    """Output tokens of an answer: its text, names and arguments of its calls. Never 0: nor is it at a vendor."""
    size_bytes = len(text.encode("utf-8", "replace"))
    size_bytes += sum(len(name) + len(arguments.encode("utf-8", "replace")) for name, arguments in calls)
    return max(1, tokens(size_bytes))
