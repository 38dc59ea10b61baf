"""What the server did: one entry per model call, in memory and in a JSON Lines file. No prompt, no answer."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from midwatch.schemas.contract import Contract
from midwatch.schemas.model import Usage

KEPT_ENTRIES = 100_000
"""In memory. A file keeps them all."""


class Entry(Contract):
    """One model call, written when it is over."""

    n: int
    """In the order of arrival, from 1."""
    t_ms: int
    """When it arrived, in ms since the epoch."""
    wire: str
    conversation: str = ""
    """Digest of the first user message; empty when the request was not understood."""
    turn: int = 0
    attempt: int = 0
    """The n-th request for this turn of this conversation; 0 when it was refused before it was looked at."""
    body_sha256: str
    status: int = 0
    """0: nothing was sent. The client left first, or the fault was to send nothing."""
    fault: str | None = None
    latency_ms: int = 0
    usage: Usage | None = None
    """What the answer cost, whatever it says itself; None for a refusal."""


class Stats(Contract):
    """Totals since the start."""

    requests: int
    """Model calls that arrived."""
    in_flight: int
    conversations: int
    counted: int
    """Requests to count tokens; they are not in the journal."""
    unexpected: int
    """Calls that the brain had no answer to."""
    by_status: dict[int, int]
    by_fault: dict[str, int]
    by_wire: dict[str, int]


class Journal:
    """Written by the server's thread, read by any."""

    def __init__(self, path: Path | None = None) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT_ENTRIES)
        self._file = path.open("a", encoding="utf-8", buffering=1) if path else None
        self._changed = threading.Condition()
        self._requests = self._in_flight = self._counted = self._unexpected = 0
        self._conversations: set[str] = set()
        self._statuses: Counter[int] = Counter()
        self._faults: Counter[str] = Counter()
        self._wires: Counter[str] = Counter()

    def arrived(self, wire: str) -> int:
        """A model call came in: its number."""
        with self._changed:
            self._requests += 1
            self._in_flight += 1
            self._wires[wire] += 1
            self._changed.notify_all()
            return self._requests

    def over(self, entry: Entry, *, unexpected: bool = False) -> None:
        """A model call is over."""
        with self._changed:
            self._in_flight -= 1
            self._unexpected += unexpected
            self._statuses[entry.status] += 1
            if entry.fault:
                self._faults[entry.fault] += 1
            if entry.conversation:
                self._conversations.add(entry.conversation)
            self._entries.append(entry)
            if self._file:
                self._file.write(entry.model_dump_json() + "\n")
            self._changed.notify_all()

    def counted(self) -> None:
        """A request to count tokens was answered."""
        with self._changed:
            self._counted += 1

    def entries(self, after: int = 0) -> list[Entry]:
        """All that are over, in the order in which they ended; those with `n` above `after`."""
        with self._changed:
            return [entry for entry in self._entries if entry.n > after]

    def stats(self) -> Stats:
        """Totals as of now."""
        with self._changed:
            return self._stats()

    def wait_until(self, reached: Callable[[Stats], bool], timeout_s: float) -> Stats:
        """Block until the totals satisfy `reached`; raises TimeoutError that shows them when they don't in time."""
        ends_s = time.monotonic() + timeout_s
        with self._changed:
            while not reached(stats := self._stats()):
                if not self._changed.wait(ends_s - time.monotonic()):
                    raise TimeoutError(f"model server: not reached within {timeout_s} s: {stats.model_dump_json()}")
            return stats

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def _stats(self) -> Stats:
        return Stats(
            requests=self._requests,
            in_flight=self._in_flight,
            conversations=len(self._conversations),
            counted=self._counted,
            unexpected=self._unexpected,
            by_status=dict(self._statuses),
            by_fault=dict(self._faults),
            by_wire=dict(self._wires),
        )
