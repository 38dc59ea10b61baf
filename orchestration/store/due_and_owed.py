"""What is owed: deferred steps that are due, steps that the coordinator woke, published steps that nobody claimed."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from midwatch.orchestration.keyspace import PARTITIONS, Keyspace, partition
from midwatch.orchestration.ports import Dispatcher
from midwatch.orchestration.store.records import member, ref_of
from midwatch.orchestration.store.scripts import Scripts, unavailable
from midwatch.schemas.step import StepRef


class Owing:
    """The stewards' part of `Operations`."""

    def __init__(self, client: redis.Redis, keys: Keyspace, dispatcher: Dispatcher) -> None:
        self.client = client
        self.keys = keys
        self._scripts = Scripts(client)
        self._dispatcher = dispatcher

    def sweep(
        self, *, patience_ms: int, stale_ms: int, idle: tuple[bool, bool], limit: int = 200
    ) -> tuple[list[StepRef], int]:
        """What must be published now, over all partitions, and the ms until the next entry is due (-1: none is waiting)."""
        args = (limit, patience_ms, stale_ms, int(idle[0]), int(idle[1]))
        calls = [("sweep", (self.keys.index(p, "due"), self.keys.index(p, "owed")), args) for p in range(PARTITIONS)]
        refs: list[StepRef] = []
        soonest = -1
        for reply in self._scripts.pipeline(calls):
            if isinstance(reply, Exception):
                raise unavailable(reply) from reply
            refs += map(ref_of, reply[1:])
            if reply[0] >= 0:
                soonest = reply[0] if soonest < 0 else min(soonest, reply[0])
        return refs, soonest

    def wake(self, refs: Sequence[StepRef]) -> list[StepRef]:
        """Owe steps that the coordinator woke; those to publish. One that does not wait any more is left alone."""
        homes: dict[int, list[str]] = {}
        for ref in refs:
            homes.setdefault(partition(ref.session_id), []).append(member(ref))
        calls = [
            ("wake", (self.keys.index(p, "due"), self.keys.index(p, "owed")), members) for p, members in homes.items()
        ]
        woken: list[StepRef] = []
        for reply in self._scripts.pipeline(calls):
            if isinstance(reply, Exception):
                raise unavailable(reply) from reply
            woken += map(ref_of, reply)
        return woken

    def publish(self, refs: Sequence[StepRef]) -> None:
        """Bring owed steps to workers. Raises StoreUnavailable."""
        self._dispatcher.publish(refs)
