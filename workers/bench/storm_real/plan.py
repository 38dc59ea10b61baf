"""The plan of one storm: its load, the behaviour of the downstream, and the number of workers.

The same plan runs with the fleet and with Celery.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from midwatch.workers.bench.storm_real.call import CALLS, FANOUT, SINGLE
from midwatch.workers.bench.storm_real.course import Course, Limit, Throttle, Trouble
from midwatch.workers.bench.storm_real.figures import compute_figures
from midwatch.workers.bench.storm_real.server import Downstream

Scenario = Literal["outage", "random", "double", "retry_after"]
SCENARIOS: tuple[Scenario, ...] = ("outage", "random", "double", "retry_after")
Calls = Literal["tool", "model"]

FAILING = 0.3
"""Share of failing calls in the scenario `random`."""
RETRY_AFTER_S = 20
THREADS = 48
"""Threads of each worker. There are more threads than calls that run at once at the limit."""
EXTRA_TIME_S = 120.0
"""A run is stopped after four times the ideal time and this extra time. Unanswered calls then count as lost."""
POLL_S = 0.25


@dataclass(frozen=True)
class Storm:
    """One storm.

    The starts of the lineages are spread evenly over a time that is as long as the trouble. Half of it is before the
    trouble. Single calls all start at once.
    """

    scenario: Scenario
    lineages: int
    processes: int
    outage_s: float
    limit_per_s: float
    calls: Calls = "tool"

    @property
    def is_single(self) -> bool:
        """Is each lineage a single call, with all calls running at once?"""
        return self.scenario == "retry_after"

    @property
    def logical(self) -> int:
        """Number of calls to be answered. An agent with children calls its model twice: to start them, and to sum up."""
        if self.is_single:
            return self.lineages
        return self.lineages * (CALLS + (1 + FANOUT if self.calls == "model" else 0))

    @property
    def spread_s(self) -> float:
        """Time from the start of the first lineage to the start of the last."""
        return 0.0 if self.is_single else self.outage_s

    @property
    def timeout_s(self) -> float:
        """Longest time of a whole run."""
        return 1.5 * self.outage_s + 4 * self.logical / self.limit_per_s + EXTRA_TIME_S

    @property
    def threads(self) -> int:
        """Threads of each worker process."""
        return -(-self.lineages // self.processes) + 4 if self.is_single else THREADS

    def course(self) -> Course:
        """Return the behaviour of the downstream."""
        limit = Limit(self.limit_per_s)
        if self.is_single:
            return Throttle(limit, held=self.lineages, retry_after_s=int(min(RETRY_AFTER_S, self.outage_s)))
        failing = FAILING if self.scenario == "random" else 1.0
        return Trouble(limit, self.spread_s / 2, self.spread_s / 2 + self.outage_s, failing)

    def start(self, downstream: Downstream, send: Callable[[str], object]) -> None:
        """Start the downstream's behaviour, and send the first call of each lineage at its time."""
        downstream.begin()
        for n in range(self.lineages):
            time.sleep(max(0.0, n * self.spread_s / self.lineages - downstream.now_s()))
            send(f"{SINGLE if self.is_single else ''}{n}")

    def await_end(self, downstream: Downstream, is_over: Callable[[], bool]) -> bool:
        """Wait for the end. Returns False if the run takes too long."""
        while not is_over():
            if downstream.now_s() > self.timeout_s:
                return False
            time.sleep(POLL_S)
        return True

    def figures(self, downstream: Downstream) -> dict[str, Any]:
        """Return the figures from the downstream's journal."""
        from_s, to_s = downstream.course.trouble()
        arrivals = list(downstream.arrivals)
        return compute_figures(arrivals, logical=self.logical, limit_per_s=self.limit_per_s, from_s=from_s, to_s=to_s)
