"""What a person should look at. Its first rows: models whose tool calls do not pass their schemas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import redis

from orchestration.drift import MIN_CALLS, THRESHOLD, Drift, rows
from orchestration.errors import ConfigError
from orchestration.keyspace import PARTITIONS, Keyspace
from orchestration.store.scripts import UNAVAILABLE, unavailable

KEPT_HOURS = 192


@dataclass(frozen=True)
class Finding:
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

    def drift(self, *, hours: int = 24, threshold: float = THRESHOLD, min_calls: int = MIN_CALLS) -> list[Finding]:
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
        found = rows(self._counters(hours))
        return [Finding(row, threshold, row.calls >= min_calls and row.rate >= threshold) for row in found]

    def _counters(self, hours: int) -> Iterator[tuple[str, int]]:
        try:
            seconds, _ = self._client.time()
            now = seconds // 3_600
            pipe = self._client.pipeline(transaction=False)
            for p in range(PARTITIONS):
                for hour in range(now - hours + 1, now + 1):
                    pipe.hgetall(self._keys.index(p, f"drift:{hour}"))
            replies = pipe.execute()
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        for reply in replies:
            for name, count in reply.items():
                yield name.decode(), int(count)
