"""What a person should look at. Its first drift_rows: models whose tool calls do not pass their schemas."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from midwatch.orchestration.drift.counts import MIN_CALLS, THRESHOLD, Drift, drift_rows
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.store import drift_counters

KEPT_HOURS = 192


@dataclass(frozen=True)
class DriftFinding:
    """One row of `midwatch findings`."""

    drift: Drift
    threshold: float
    over: bool
    """It is above the threshold, on enough calls to say so."""


class Findings:
    """`client.findings`."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self._client = client
        self._keys = keys

    def drift(self, *, hours: int = 24, threshold: float = THRESHOLD, min_calls: int = MIN_CALLS) -> list[DriftFinding]:
        """Invalid calls by model, tool and context band, the worst first.

        Args:
            hours: how far back, at most 192: whole hours of the server's clock, the present one included.
            threshold: the share from which a row is over.
            min_calls: fewer say nothing.

        Raises:
            ConfigError: `hours` is out of its range.
            StoreUnavailable: Redis can't be reached.

        """
        if not 1 <= hours <= KEPT_HOURS:
            raise ConfigError(f"hours={hours}: expected 1 to {KEPT_HOURS}; older counters are gone")
        counters = drift_counters.read(self._client, self._keys, hours)
        found = drift_rows((name, count) for (_, name), count in counters.items())
        return [DriftFinding(row, threshold, row.calls >= min_calls and row.rate >= threshold) for row in found]
