"""Drift: how often a model's calls do not pass, by model, tool and fill of its window. Counted in Redis, watched here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

log = structlog.get_logger("midwatch.drift")

THRESHOLD = 0.03
"""Share of invalid calls that a person should look at: recorded models stay below it or lie far above (2 % over 11,877 calls)."""

MIN_CALLS = 20
"""Fewer say nothing."""

BANDS = ((10_000, "under 10k"), (50_000, "10k-50k"), (100_000, "50k-100k"))
"""Input tokens of the turn; above the last: `over 100k`."""

SHADOW = "shadow"
"""The kind of calls that ran although their schema refuses them, because their tool's author said so."""

OPEN_AT = 0.3
"""The breaker of a model and tool opens when so many of the last calls were refused."""

LOOK_MS = 15_000
"""How often a worker looks at the counters: one pipeline."""

RECENT_MS = 600_000

Counters = Mapping[tuple[int, str], int]
"""By hour and name."""


def band(tokens: int) -> str:
    """The context band of a turn."""
    return next((name for limit, name in BANDS if tokens < limit), "over 100k")


def call_field(model: str, tool: str, tokens: int) -> str:
    """The counter of all calls."""
    return f"calls|{model}|{tool[:64]}|{band(tokens)}|"


def invalid_field(model: str, tool: str, tokens: int, kind: str) -> str:
    """The counter of calls refused for one kind of reason, or of those that ran all the same: `SHADOW`."""
    return f"invalid|{model}|{tool[:64]}|{band(tokens)}|{kind}"


@dataclass(frozen=True)
class Drift:
    """One row of the findings: a model's calls of one tool in one band."""

    model: str
    tool: str
    band: str
    calls: int
    invalid: int
    kinds: dict[str, int]

    @property
    def rate(self) -> float:
        """Share of invalid calls."""
        return self.invalid / self.calls if self.calls else 0.0


def rows(counters: Iterable[tuple[str, int]]) -> list[Drift]:
    """Counters, of any number of hours, as rows; the worst first."""
    calls: dict[tuple[str, str, str], int] = {}
    kinds: dict[tuple[str, str, str], dict[str, int]] = {}
    for name, count in counters:
        what, model, tool, where, kind = name.split("|", 4)
        key = (model, tool, where)
        if what == "calls":
            calls[key] = calls.get(key, 0) + count
        else:
            kinds.setdefault(key, {})[kind] = kinds.get(key, {}).get(kind, 0) + count
    found = [
        Drift(*key, calls=calls.get(key, 0), invalid=sum(kinds.get(key, {}).values()), kinds=kinds.get(key, {}))
        for key in calls.keys() | kinds.keys()
    ]
    return sorted(found, key=lambda row: (-row.rate, -row.calls, row.model, row.tool, row.band))


class DriftBreaker:
    """Which tools a model drifts at now: open, it is offered them in their strict form, and climbs the ladder faster.

    It looks at the counters of the whole fleet: at those of the last ten minutes or, where that is too few calls, of this
    hour and the one before. It closes by itself, as fewer calls are refused. Thread-safe; one per process.
    """

    def __init__(self, counters: Callable[[int], Counters], monotonic_ms: Callable[[], int]) -> None:
        self._counters = counters
        self._monotonic_ms = monotonic_ms
        self._seen: deque[tuple[int, Counters]] = deque()
        """When we looked, and what was there."""
        self._open: dict[str, frozenset[str]] = {}
        self._lock = threading.Lock()

    def open(self, model: str) -> frozenset[str]:
        """The tools that this model drifts at.

        Raises:
            StoreUnavailable: Redis can't be reached.

        """
        now = self._monotonic_ms()
        with self._lock:
            due = not self._seen or now - self._seen[-1][0] >= LOOK_MS
        if due:
            self._look(now, self._counters(2))
        return self._open.get(model, frozenset())

    def _look(self, now: int, counters: Counters) -> None:
        with self._lock:
            self._seen.append((now, counters))
            while now - self._seen[0][0] > RECENT_MS:
                self._seen.popleft()
            before = self._seen[0][1]
        recent = {key: count - before.get(key, 0) for key, count in counters.items()}
        opened: dict[str, set[str]] = {}
        for key, (calls, invalid) in _by_tool(counters).items():
            lately = _by_tool(recent)[key]
            calls, invalid = lately if lately[0] >= MIN_CALLS else (calls, invalid)
            if calls >= MIN_CALLS and invalid / calls >= OPEN_AT:
                opened.setdefault(key[0], set()).add(key[1])
        now_open = {model: frozenset(tools) for model, tools in opened.items()}
        if now_open != self._open:
            log.warning("drift.breaker", open={model: sorted(tools) for model, tools in now_open.items()})
        self._open = now_open


def _by_tool(counters: Counters) -> dict[tuple[str, str], tuple[int, int]]:
    """Calls and refused calls by model and tool. Those that ran in shadow mode passed."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for (_, name), count in counters.items():
        what, model, tool, _, kind = name.split("|", 4)
        calls, invalid = found.get((model, tool), (0, 0))
        if what == "calls":
            calls += count
        elif kind != SHADOW:
            invalid += count
        found[model, tool] = calls, invalid
    return found
