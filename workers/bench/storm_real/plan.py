"""One storm of `bench storm`: which load, which course of the downstream, how many workers. Played to the fleet and to Celery."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from midwatch.workers.bench.storm_real.call import CALLS, FANOUT, LONE
from midwatch.workers.bench.storm_real.course import Course, Limit, Throttle, Trouble
from midwatch.workers.bench.storm_real.figures import figures
from midwatch.workers.bench.storm_real.server import Downstream

Scenario = Literal["outage", "random", "double", "retry_after"]
SCENARIOS: tuple[Scenario, ...] = ("outage", "random", "double", "retry_after")
Calls = Literal["tool", "model"]

FAILING = 0.3
"""The share of calls that fails in the random scenario."""
RETRY_AFTER_S = 20
THREADS = 48
"""Of each worker: more than calls are ever under way at the limit."""
PATIENCE_S = 120.0
"""Beyond four times the ideal drain a run is broken off; what is not done then counts as lost."""
POLL_S = 0.25


@dataclass(frozen=True)
class Storm:
    """Lineages start evenly within as long as the trouble lasts, from half of it before. Lone calls start all at once."""

    scenario: Scenario
    lineages: int
    processes: int
    outage_s: float
    limit_per_s: float
    calls: Calls = "tool"

    @property
    def lone(self) -> bool:
        """One call each, all of them in flight together."""
        return self.scenario == "retry_after"

    @property
    def logical(self) -> int:
        """Calls to be answered. An agent with children asks its model twice: to call them, and to sum up."""
        if self.lone:
            return self.lineages
        return self.lineages * (CALLS + (1 + FANOUT if self.calls == "model" else 0))

    @property
    def spread_s(self) -> float:
        """From the first lineage to the last."""
        return 0.0 if self.lone else self.outage_s

    @property
    def timeout_s(self) -> float:
        """Of a whole run."""
        return 1.5 * self.outage_s + 4 * self.logical / self.limit_per_s + PATIENCE_S

    @property
    def threads(self) -> int:
        """Of each worker process."""
        return -(-self.lineages // self.processes) + 4 if self.lone else THREADS

    def course(self) -> Course:
        """What the downstream does."""
        limit = Limit(self.limit_per_s)
        if self.lone:
            return Throttle(limit, held=self.lineages, retry_after_s=int(min(RETRY_AFTER_S, self.outage_s)))
        failing = FAILING if self.scenario == "random" else 1.0
        return Trouble(limit, self.spread_s / 2, self.spread_s / 2 + self.outage_s, failing)

    def start(self, downstream: Downstream, send: Callable[[str], object]) -> None:
        """Begin the course, and send off the first call of each lineage when its time has come."""
        downstream.begin()
        for n in range(self.lineages):
            time.sleep(max(0.0, n * self.spread_s / self.lineages - downstream.now_s()))
            send(f"{LONE if self.lone else ''}{n}")

    def await_end(self, downstream: Downstream, is_over: Callable[[], bool]) -> bool:
        """Wait for the end. False: it did not come in time."""
        while not is_over():
            if downstream.now_s() > self.timeout_s:
                return False
            time.sleep(POLL_S)
        return True

    def figures(self, downstream: Downstream) -> dict[str, Any]:
        """What the downstream saw."""
        from_s, to_s = downstream.course.trouble()
        arrivals = list(downstream.arrivals)
        return figures(arrivals, logical=self.logical, limit_per_s=self.limit_per_s, from_s=from_s, to_s=to_s)
