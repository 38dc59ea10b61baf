"""The drift breaker: finds the tools that a model often calls wrongly, from the fleet's recent counts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from midwatch.orchestration.drift.counts import MIN_CALLS, Counters, count_by_tool, opaque_refusals
from midwatch.orchestration.logs import get_logger

log = get_logger("midwatch.drift")

OPEN_AT = 0.3
"""The breaker of a model and tool opens from this share of refused calls on."""

LOOK_MS = 15_000
"""How often a worker reads the counters. One read is one pipeline."""

RECENT_MS = 600_000
"""How far back the worker compares its own readings: ten minutes."""


class DriftBreaker:
    """Finds the tools that a model often calls wrongly. The model then gets them in strict form, and climbs the ladder faster.

    The breaker reads the counters of the whole fleet. It uses the last ten minutes or, if those hold too few calls, this
    hour and the one before. It closes by itself when fewer calls are refused. Thread-safe; one per process.
    """

    def __init__(self, counters: Callable[[int], Counters], monotonic_ms: Callable[[], int]) -> None:
        self._counters = counters
        self._monotonic_ms = monotonic_ms
        self._seen: deque[tuple[int, Counters]] = deque()
        """The readings: when, and the counters."""
        self._open: dict[str, frozenset[str]] = {}
        self._opaque: dict[str, frozenset[str]] = {}
        self._lock = threading.Lock()

    def open_tools(self, model: str) -> frozenset[str]:
        """The tools whose breaker is open for this model.

        Raises:
            StoreUnavailable: Redis can't be reached.

        """
        now = self._monotonic_ms()
        with self._lock:
            due = not self._seen or now - self._seen[-1][0] >= LOOK_MS
        if due:
            self._update(now, self._counters(2))
        return self._open.get(model, frozenset())

    def opaque_refused_by(self, model: str) -> frozenset[str]:
        """The servers that refused this model's opaque parts in this hour or the one before, as of the last reading."""
        return self._opaque.get(model, frozenset())

    def _update(self, now: int, counters: Counters) -> None:
        with self._lock:
            self._seen.append((now, counters))
            while now - self._seen[0][0] > RECENT_MS:
                self._seen.popleft()
            before = self._seen[0][1]
        recent = {key: count - before.get(key, 0) for key, count in counters.items()}
        opened: dict[str, set[str]] = {}
        for key, (calls, invalid) in count_by_tool(counters).items():
            recently = count_by_tool(recent)[key]
            calls, invalid = recently if recently[0] >= MIN_CALLS else (calls, invalid)
            if calls >= MIN_CALLS and invalid / calls >= OPEN_AT:
                opened.setdefault(key[0], set()).add(key[1])
        now_open = {model: frozenset(tools) for model, tools in opened.items()}
        if now_open != self._open:
            log.warning("drift.breaker", open={model: sorted(tools) for model, tools in now_open.items()})
        self._open = now_open
        self._opaque = opaque_refusals(counters)
