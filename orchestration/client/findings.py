"""Findings: what a person should look at: models whose tool calls do not match the schemas, and prompts that had to be cut."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from midwatch.orchestration.drift.counts import MIN_CALLS, THRESHOLD, CutPrompts, Drift, cut_rows, drift_rows
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
    """The share of invalid calls reaches the threshold, and there are enough calls to judge it."""


class Findings:
    """`client.findings`: what a person should look at."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self._client = client
        self._keys = keys

    def drift(self, *, hours: int = 24, threshold: float = THRESHOLD, min_calls: int = MIN_CALLS) -> list[DriftFinding]:
        """The share of invalid calls by model, tool and context band, the worst first.

        Args:
            hours: how many hours to count, at most 192. They are whole hours of the server's clock, with the current one.
            threshold: a row is over the threshold from this share on.
            min_calls: a row with fewer calls is never over the threshold.

        Raises:
            ConfigError: `hours` is out of its range.
            StoreUnavailable: Redis can't be reached.

        """
        found = drift_rows(self._counters(hours))
        return [DriftFinding(row, threshold, row.calls >= min_calls and row.rate >= threshold) for row in found]

    def cut_prompts(self, *, hours: int = 24) -> list[CutPrompts]:
        """The calls whose prompt had to be cut, by model, agent and context band. Each is a finding: raise the agent's budget.

        Args:
            hours: as for `drift`.

        Raises:
            ConfigError: `hours` is out of its range.
            StoreUnavailable: Redis can't be reached.

        """
        return cut_rows(self._counters(hours))

    def _counters(self, hours: int) -> list[tuple[str, int]]:
        if not 1 <= hours <= KEPT_HOURS:
            raise ConfigError(f"hours={hours}: expected 1 to {KEPT_HOURS}; older counters are deleted")
        counters = drift_counters.read(self._client, self._keys, hours)
        return [(name, count) for (_, name), count in counters.items()]
