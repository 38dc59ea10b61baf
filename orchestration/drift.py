"""Drift: how often a model's calls do not pass, by model, tool and fill of its window. Counted in Redis, watched here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

THRESHOLD = 0.03
"""Share of invalid calls that a person should look at: recorded models stay below it or lie far above (2 % over 11,877 calls)."""

MIN_CALLS = 20
"""Fewer say nothing."""

BANDS = ((10_000, "under 10k"), (50_000, "10k-50k"), (100_000, "50k-100k"))
"""Input tokens of the turn; above the last: `over 100k`."""

SHADOW = "shadow"
"""The kind of calls that ran although their schema refuses them, because their tool's author said so."""

WATCHED = 50
OPEN_AT = 0.3
"""The breaker of a model and tool opens when so many of the last calls were refused: the ladder is climbed a rung faster."""


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
    """The last calls of each model and tool that this process saw. Thread-safe."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], deque[bool]] = {}
        self._lock = threading.Lock()

    def saw(self, model: str, tool: str, passed: bool) -> None:
        """One call."""
        with self._lock:
            self._seen.setdefault((model, tool), deque(maxlen=WATCHED)).append(passed)

    def open(self, model: str, tools: Iterable[str]) -> bool:
        """Does the model drift at one of these tools?"""
        with self._lock:
            windows = [self._seen.get((model, tool), ()) for tool in tools]
        return any(len(seen) >= MIN_CALLS and seen.count(False) / len(seen) >= OPEN_AT for seen in windows if seen)
