"""A worker's copies of conversations. A claim reads only new messages, so turn 200 costs no more than turn 2."""

from __future__ import annotations

import sys
import threading
import time
import zlib
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha1

from midwatch.orchestration.protocol.claims import LogMark
from midwatch.orchestration.tokens.weight import weigh_message
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import MESSAGE, Message, ToolMessage

COMPRESS_ABOVE_BYTES = 4_096
"""zlib level 1 makes a 200 KB transcript 16 times smaller in 0.5 ms (measured); below 4 KB it is not worth the call."""

HELD_MESSAGE_BYTES = 1_600
"""What a message takes in memory beside its text (tracemalloc, Python 3.11, pydantic 2: 1,530 to 1,600 in sessions of 5 to 101
messages). A message of 200 bytes takes nine times as much memory as its JSON."""

IDLE_S = 600.0
"""A copy that was not used for so long is dropped. Most often another worker has ended the job."""


def encode(message: Message) -> bytes:
    """Encode a message as a log entry: JSON, or `z` and compressed JSON if it is long."""
    raw = message.model_dump_json(exclude_none=True).encode()
    return b"z" + zlib.compress(raw, 1) if len(raw) > COMPRESS_ABOVE_BYTES else raw


def decode(entry: bytes) -> tuple[Message, int]:
    """Decode a log entry. Returns the message and the size of its JSON in bytes."""
    raw = _decompress(entry)
    return MESSAGE.validate_json(raw), len(raw)


def _decompress(entry: bytes) -> bytes:
    return zlib.decompress(entry[1:]) if entry[:1] == b"z" else entry


def _held_bytes(raw: bytes) -> int:
    """Estimate the memory of a message from its JSON. One emoji makes each character of a text take four bytes."""
    return HELD_MESSAGE_BYTES + (len(raw) if raw.isascii() else sys.getsizeof(raw.decode(errors="replace")))


class _Copy:
    """The messages of one session, in the order in which they are sent."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.length = 0
        self.held_bytes = HELD_MESSAGE_BYTES
        self.used_s = 0.0
        self.weight = 0
        self.messages: list[Message] = []
        self.last = b""
        self.memory: Memory | None = None

    def append(self, entry: bytes) -> None:
        raw = _decompress(entry)
        message = MESSAGE.validate_json(raw)
        self.length += 1
        self.held_bytes += _held_bytes(raw)
        self.weight += weigh_message(message)
        self.last = entry
        if not isinstance(message, ToolMessage):
            self.messages.append(message)
            return
        # Results are logged in the order in which they finished. They are sent in the order of their calls.
        start = len(self.messages)
        while (
            start
            and isinstance(self.messages[start - 1], ToolMessage)
            and self.messages[start - 1].group == message.group
        ):
            start -= 1
        insort(self.messages, message, lo=start, key=lambda m: m.ordinal if isinstance(m, ToolMessage) else 0)


@dataclass(frozen=True)
class HeldMark(LogMark):
    """A mark with its copy. It keeps the copy alive for the claim's new entries, even if the cache drops it meanwhile."""

    copy: _Copy | None = None


@dataclass(frozen=True)
class Held:
    """A conversation that a worker has cached."""

    messages: tuple[Message, ...] = ()
    weight: int = 0
    memory: Memory | None = None


class LogCache:
    """A cache of conversations by session. Thread-safe. A stale copy is shorter than the log, but never differs from it.

    `max_bytes` bounds the memory of the copies. The least recently used ones are dropped first, and each that is idle.
    """

    def __init__(self, max_bytes: int = 64_000_000, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def mark(self, session_id: str) -> HeldMark:
        """Return how much of the session's log is cached."""
        with self._lock:
            copy = self._copies.get(session_id)
            if copy is None:
                return HeldMark()
            digest = sha1(copy.last, usedforsecurity=False).hexdigest()
            return HeldMark(copy.epoch, copy.length, digest, copy)

    def extend(
        self, session_id: str, mark: HeldMark, epoch: int, start: int, entries: Sequence[bytes], memory: bytes = b""
    ) -> Held:
        """Add the entries of a claim to the copy of `mark`. Returns the whole conversation, its weight, and the memory.

        `start` is the index of the first entry in the server's log. It is 0 if the copy did not match the log.
        """
        with self._lock:
            kept = self._copies.pop(session_id, None)
            if kept:
                self._bytes -= kept.held_bytes
            copy = mark.copy if start else None
            if copy is None:
                copy = _Copy(epoch)
                copy.memory = Memory.model_validate_json(memory) if memory else None
            # Skip entries that another thread has added during this claim.
            for entry in entries[copy.length - start :]:
                copy.append(entry)
            self._copies[session_id] = copy
            self._bytes += copy.held_bytes
            copy.used_s = self._monotonic()
            self._drop_old(copy.used_s - IDLE_S)
            return Held(tuple(copy.messages), copy.weight, copy.memory)

    def forget(self, session_id: str) -> None:
        """Drop the copy of a session."""
        with self._lock:
            copy = self._copies.pop(session_id, None)
            if copy:
                self._bytes -= copy.held_bytes

    def _drop_old(self, idle_since_s: float) -> None:
        """Drop the oldest copies while they are idle, or all take too much memory. The newest one stays."""
        while len(self._copies) > 1:
            oldest = next(iter(self._copies.values()))
            if oldest.used_s > idle_since_s and self._bytes <= self._max_bytes:
                return
            self._copies.popitem(last=False)
            self._bytes -= oldest.held_bytes
