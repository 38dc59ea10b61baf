"""Estimates token usage, and simulates a prompt cache that stores prefixes.

Four bytes count as one token. No vendor counts like that, but the estimate is proportional to the request, and a token
count equals the usage that is reported later. The number of cached tokens depends on earlier requests; the sum of
tokens does not.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator

from midwatch.schemas.model import Usage
from midwatch.workers.simulator.brains.brain import Conversation
from midwatch.workers.simulator.vendor_formats.compact_json import dump_json
from midwatch.workers.simulator.vendor_formats.vendor_format import Prompt

BYTES_PER_TOKEN = 4
SMALLEST_CACHED_TOKENS = 1_024
"""Shorter prefixes are not cached. Vendors have the same minimum for most models."""
REMEMBERED_PREFIXES = 50_000


def estimate_tokens(size_bytes: int) -> int:
    """Estimate the tokens of a text, rounded up."""
    return -(-size_bytes // BYTES_PER_TOKEN)


def billed_pieces(conversation: Conversation) -> Iterator[bytes]:
    """Yield the parts of a request that count as input: system prompt and tools together, then each turn."""
    offers = [(tool.name, tool.description, tool.input_schema) for tool in conversation.tools]
    yield f"{conversation.model}\n{conversation.system}\n{dump_json(offers) if offers else ''}".encode(
        "utf-8", "replace"
    )
    for turn in conversation.turns:
        calls = "".join(f"{call.id}{call.name}{call.arguments}" for call in turn.calls)
        yield f"{turn.role}:{turn.text}{calls}".encode("utf-8", "replace")


class Meter:
    """Counts the input tokens of prompts, and how many of them are cached."""

    def __init__(self) -> None:
        self._prefixes: OrderedDict[bytes, None] = OrderedDict()

    def count(self, conversation: Conversation) -> int:
        """Count the input tokens of a request."""
        return sum(estimate_tokens(len(piece)) for piece in billed_pieces(conversation))

    def read(self, prompt: Prompt, *, remember: bool = True) -> Usage:
        """Return the input usage of a prompt, and store its prefixes in the cache.

        The longest stored prefix counts as cached. With `remember=False`, nothing is stored, because the request may
        still be refused.
        """
        total = cached = written = 0
        marks = prompt.breakpoints
        last = max(marks, default=-1) if marks is not None else len(prompt.conversation.turns)
        running = hashlib.blake2b(digest_size=16)
        for number, piece in enumerate(billed_pieces(prompt.conversation)):
            total += estimate_tokens(len(piece))
            if number > last:
                continue
            running.update(piece)
            if total < SMALLEST_CACHED_TOKENS:
                continue
            prefix = running.digest()
            if prefix in self._prefixes:
                cached = total
                if remember:
                    self._prefixes.move_to_end(prefix)
            if marks is None or number in marks:
                if remember:
                    self._prefixes[prefix] = None
                written = total - cached if marks is not None else 0
        while len(self._prefixes) > REMEMBERED_PREFIXES:
            self._prefixes.popitem(last=False)
        return Usage(input_tokens=total, cached_tokens=cached, cache_write_tokens=written)


def count_output_tokens(text: str, calls: Iterator[tuple[str, str]]) -> int:
    """Count the output tokens of an answer: its text, and its calls' names and arguments. It is at least 1."""
    size_bytes = len(text.encode("utf-8", "replace"))
    size_bytes += sum(len(name) + len(arguments.encode("utf-8", "replace")) for name, arguments in calls)
    return max(1, estimate_tokens(size_bytes))
