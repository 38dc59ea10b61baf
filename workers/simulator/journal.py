"""The journal of the server: one entry per model call, in memory and in a JSON Lines file.

It contains no prompts and no answers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from midwatch.schemas.contract import Contract
from midwatch.schemas.model import Usage

KEPT_ENTRIES = 100_000
"""Most entries kept in memory. The file keeps all entries."""


class Entry(Contract):
    """One model call, recorded when it has ended."""

    n: int
    """Number of the call in the order of arrival, from 1."""
    t_ms: int
    """Time of arrival, in ms since the epoch."""
    wire: str
    """Name of the vendor format: `anthropic-messages`, `openai-responses` or `openai-chat`."""
    conversation: str = ""
    """Digest of the first user message. Empty if the request could not be parsed."""
    turn: int = 0
    attempt: int = 0
    """The call is the n-th request for this turn of this conversation. 0 if it was refused before attempts are counted."""
    body_sha256: str
    status: int = 0
    """HTTP status. 0 if nothing was sent, because the client left first or the fault was to send nothing."""
    fault: str | None = None
    latency_ms: int = 0
    usage: Usage | None = None
    """The real usage, even if the answer reports another one. None for a refusal."""


class Stats(Contract):
    """Totals since the start."""

    requests: int
    """Model calls that arrived."""
    in_flight: int
    conversations: int
    counted: int
    """Requests to count tokens. They have no entries."""
    unexpected: int
    """Calls for which the brain had no answer."""
    by_status: dict[int, int]
    by_fault: dict[str, int]
    by_wire: dict[str, int]


class Journal:
    """The entries and totals. The server's thread writes them; any thread may read them."""

    def __init__(self, path: Path | None = None) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT_ENTRIES)
        self._file = path.open("a", encoding="utf-8", buffering=1) if path else None
        self._changed = threading.Condition()
        self._requests = self._in_flight = self._counted = self._unexpected = 0
        self._conversations: set[str] = set()
        self._statuses: Counter[int] = Counter()
        self._faults: Counter[str] = Counter()
        self._formats: Counter[str] = Counter()

    def record_arrival(self, vendor_format: str) -> int:
        """Record that a model call arrived, and return its number."""
        with self._changed:
            self._requests += 1
            self._in_flight += 1
            self._formats[vendor_format] += 1
            self._changed.notify_all()
            return self._requests

    def record_end(self, entry: Entry, *, unexpected: bool = False) -> None:
        """Record that a model call has ended."""
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

    def record_count(self) -> None:
        """Record a request to count tokens."""
        with self._changed:
            self._counted += 1

    def entries(self, after: int = 0) -> list[Entry]:
        """Return the entries with `n` above `after`, in the order in which the calls ended."""
        with self._changed:
            return [entry for entry in self._entries if entry.n > after]

    def stats(self) -> Stats:
        """Return the current totals."""
        with self._changed:
            return self._stats()

    def wait_until(self, reached: Callable[[Stats], bool], timeout_s: float) -> Stats:
        """Block until the totals satisfy `reached`. After `timeout_s`, raise a TimeoutError that shows the totals."""
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
            by_wire=dict(self._formats),
        )
