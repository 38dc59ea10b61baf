"""The workers of the fleet. Each reports itself every few seconds.

A worker that has not reported for a while is not listed.
"""

from __future__ import annotations

from collections.abc import Iterable

import redis

from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.schemas.contract import Record

REPORT_S = 5.0
"""Time between two reports of a worker."""

ALIVE_MS = 20_000
"""A worker that has not reported for this long is not listed. Three reports may be late."""

KEPT_S = 24 * 3600
"""How long the key is kept after the last report of any worker."""


class WorkerReport(Record):
    """What a worker says about itself."""

    name: str
    host: str
    pid: int
    pool: str
    queues: tuple[str, ...]
    """Names of the queues without the fleet's prefix: model, tools, maintenance."""
    slots: int
    """How many steps it can run at once."""
    busy: int
    """How many it runs now."""
    agents: dict[str, str]
    """Name of each loaded agent -> its version."""
    version: str
    """Of Midwatch."""
    started_ms: int
    """When it began to take steps, by the server's clock."""
    seen_ms: int = 0
    """When it last reported."""


class Presence:
    """`client.workers`: the workers that run now."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self._client = client
        self._key = keys.workers()

    def report(self, worker: WorkerReport) -> None:
        """Write the worker's report. The time is the server's."""
        seen = worker.model_copy(update={"seen_ms": self.now_ms()})
        pipe = self._client.pipeline(transaction=False)
        pipe.hset(self._key, worker.name, seen.model_dump_json())
        pipe.expire(self._key, KEPT_S)
        run_pipeline(pipe)

    def leave(self, name: str) -> None:
        """Remove the report of a worker that ends."""
        self._client.hdel(self._key, name)

    def list(self) -> list[WorkerReport]:
        """Return the workers that have reported lately, by name. Reports of workers that died are removed."""
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        pipe.hgetall(self._key)
        (seconds, micros), rows = run_pipeline(pipe)
        now_ms = int(seconds) * 1_000 + int(micros) // 1_000
        found, gone = [], []
        for name, raw in rows.items():
            report = _read(raw)
            if report is not None and now_ms - report.seen_ms < ALIVE_MS:
                found.append(report)
            elif report is None or now_ms - report.seen_ms > 10 * ALIVE_MS:
                gone.append(name)
        if gone:
            self._client.hdel(self._key, *gone)
        return sorted(found, key=lambda report: report.name)

    def now_ms(self) -> int:
        """Return the server's time."""
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        ((seconds, micros),) = run_pipeline(pipe)
        return int(seconds) * 1_000 + int(micros) // 1_000


def count_slots(workers: Iterable[WorkerReport], queue: str) -> tuple[int, int, int]:
    """Return how many workers serve a queue, how many slots they have, and how many of these are busy."""
    serving = [worker for worker in workers if queue in worker.queues]
    return len(serving), sum(worker.slots for worker in serving), sum(worker.busy for worker in serving)


def _read(raw: bytes) -> WorkerReport | None:
    try:
        return WorkerReport.model_validate_json(raw)
    except ValueError:
        return None
