"""Find steps to publish: deferred ones that are due, those that the coordinator woke, and those whose message was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from midwatch.orchestration.keyspace import PARTITIONS, Keyspace, partition
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.ports import Dispatcher
from midwatch.orchestration.protocol.reading import explain
from midwatch.orchestration.store.backlog import Backlog
from midwatch.orchestration.store.records import member
from midwatch.orchestration.store.script_calls import bring_back
from midwatch.orchestration.store.script_calls.script_call import Reply, ScriptCall
from midwatch.orchestration.store.scripts import UNAVAILABLE, Scripts, unavailable
from midwatch.schemas.step import StepRef

log = get_logger("midwatch.operations")


class DueAndOwed:
    """The part of `Operations` for stewards."""

    def __init__(self, client: redis.Redis, keys: Keyspace, dispatcher: Dispatcher) -> None:
        self.client = client
        self.keys = keys
        self._scripts = Scripts(client)
        self._dispatcher = dispatcher
        self.backlog = Backlog(client, keys, dispatcher)

    def sweep(
        self, *, patience_ms: int, stale_ms: int, idle: tuple[bool, bool], limit: int = 200
    ) -> tuple[list[StepRef], int]:
        """Return the steps of all partitions to publish now, and the ms until the next step is due (-1 if none waits)."""
        due, owed, next_due_ms = self.find_due_and_owed(
            patience_ms=patience_ms, stale_ms=stale_ms, idle=idle, limit=limit
        )
        return due + owed, next_due_ms

    def find_due_and_owed(
        self, *, patience_ms: int, stale_ms: int, idle: tuple[bool, bool], limit: int = 200
    ) -> tuple[list[StepRef], list[StepRef], int]:
        """Like `sweep`, but with two lists: steps that were claimed before and are due, and steps that no worker has claimed.

        Args:
            patience_ms: how long a step may stay unclaimed while its queue is empty.
            stale_ms: how long a step may stay unclaimed while its queue is not empty.
            idle: whether the model queue is empty, and whether the tools queue is.
            limit: the most steps of each kind from each partition.

        """
        model_queue_idle, tools_queue_idle = idle
        replies = self._run_sweeps(
            [
                bring_back.sweep(
                    self.keys, p, self.backlog.used_keys(), limit=limit, patience_ms=patience_ms, stale_ms=stale_ms,
                    model_queue_idle=model_queue_idle, tools_queue_idle=tools_queue_idle,
                )
                for p in range(PARTITIONS)
            ]
        )  # fmt: skip
        next_due = [reply.next_due_ms for reply in replies if reply.next_due_ms is not None]
        due = [ref for reply in replies for ref in reply.due]
        owed = [ref for reply in replies for ref in reply.owed]
        return due, owed, min(next_due, default=-1)

    def _run_sweeps(self, calls: Sequence[ScriptCall[Any]]) -> list[Any]:
        """Sweep all partitions. A damaged index of one partition does not delay the steps of the others."""
        found = []
        for p, reply in enumerate(self._scripts.run_each(calls)):
            if isinstance(reply, UNAVAILABLE):
                raise unavailable(reply) from reply
            if isinstance(reply, Exception):
                log.warning("sweep.failed", partition=p, error=explain(reply))
            else:
                found.append(reply)
        return found

    def wake(self, refs: Sequence[StepRef]) -> list[StepRef]:
        """Mark as owed the steps that the coordinator woke, and return them. A step that no longer waits is not changed."""
        by_partition: dict[int, list[str]] = {}
        for ref in refs:
            by_partition.setdefault(partition(ref.session_id), []).append(member(ref))
        calls = [bring_back.wake(self.keys, p, members=members) for p, members in by_partition.items()]
        return [ref for woken in self._scripts.run_all(calls) for ref in woken]

    def run_each(self, calls: Sequence[ScriptCall[Reply]]) -> list[Reply | Exception]:
        """Run several scripts in one round trip. Errors come back as values. Raises StoreUnavailable."""
        return self._scripts.run_each(calls)

    def publish(self, refs: Sequence[StepRef], *, begun: bool = False) -> None:
        """Publish owed steps to workers. `begun` means that they were claimed before. Raises StoreUnavailable."""
        self._dispatcher.publish(refs, begun=begun)
