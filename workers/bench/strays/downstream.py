"""A downstream in simulated time that refuses calls by chance, and above its limit. It names neither a limit nor a wait."""

from __future__ import annotations

import random

from midwatch.schemas.failure import FailureKind
from midwatch.workers.bench.storm_simulated.provider import REFUSED_S, Answer, Provider, ProviderModel
from midwatch.workers.bench.storm_simulated.simulation import Simulation
from midwatch.workers.bench.strays.cells import Cell

UNLIMITED_PER_S = 1e9
NEVER_S = 1e12
"""There is no outage."""


class StrayDownstream(Provider):
    """A provider with stray 429s."""

    def __init__(self, cell: Cell, simulation: Simulation, rng: random.Random) -> None:
        per_s = UNLIMITED_PER_S if cell.limit is None else cell.limit / 60
        super().__init__(ProviderModel(per_s, outage_from_s=NEVER_S, outage_until_s=NEVER_S), simulation, rng)
        self._share, self._depth = cell.share, max(1.0, per_s * cell.burst_s)
        self._tokens = self._depth

    def _try_fail(self) -> Answer | None:
        is_stray = self.rng.random() < self._share
        return Answer(REFUSED_S, FailureKind.RATE_LIMITED) if is_stray else None

    def _try_refuse(self) -> Answer | None:
        now_s, per_s = self.simulation.now_s, self.model.limit_per_s
        self._tokens = min(self._depth, self._tokens + (now_s - self._since_s) * per_s)
        self._since_s = now_s
        return None if self._tokens >= 1 else Answer(REFUSED_S, FailureKind.RATE_LIMITED)
