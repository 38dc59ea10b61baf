"""The backlog: first steps that wait outside their queue, so that tenants take turns.

A queue is first come, first served. With 5,000 new jobs of one tenant in it, a job of another tenant would wait for all of them.
So the queue of first steps is kept short. Further first steps wait in the backlog, where tenants take turns. Stewards move them
to the queue as workers take steps from it. A step of the backlog is owed, like any step that no worker has claimed.
"""

from __future__ import annotations

from collections.abc import Sequence

import redis

from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.ports import Dispatcher
from midwatch.orchestration.store.records import member, refs_of
from midwatch.orchestration.store.script_calls.first_steps import FirstStep, QueueKeys, fill_queue, publish_first
from midwatch.orchestration.store.scripts import Scripts
from midwatch.orchestration.store.step_keys import step_keys
from midwatch.schemas.job import NewJob
from midwatch.schemas.step import Priority, StepRef

PLACES = 32
"""How many first steps a queue holds before others wait in the backlog. A tenant that comes new waits behind so many."""


def first_step_keys(keys: Keyspace, queue: str, priority: Priority) -> QueueKeys:
    """The keys of the first steps of one priority."""
    return QueueKeys(queue, keys.backlog(priority), keys.backlog_tenants(priority))


def keys_of_new_job(keys: Keyspace, dispatcher: Dispatcher, job: NewJob) -> tuple[str, ...]:
    """The keys with which a job is enqueued. With hand-off, its queue is that of first steps, and it may wait in the backlog.

    A child's first step is work of its parent, which has begun. So it goes with the other steps, and waits in no backlog.
    """
    queues, first = dispatcher.hand_off(job.priority), dispatcher.first_queue(job.priority)
    if not (queues and first) or job.parent is not None:
        return step_keys(keys, job.ref, queues).used()
    own = step_keys(keys, job.ref, (first, queues[1])).used()
    return (*own, keys.backlog(job.priority), keys.backlog_tenants(job.priority))


def publish_through_backlog(scripts: Scripts, keys: QueueKeys, ref: StepRef, message: bytes) -> None:
    """Publish a first step that is already owed. Its tenant is not known here, so each session has its own turns."""
    scripts.run(
        publish_first(keys, places=PLACES, member=member(ref), tenant=f"session {ref.session_id}", message=message)
    )


class Backlog:
    """The backlogs of all priorities."""

    def __init__(self, client: redis.Redis, keys: Keyspace, dispatcher: Dispatcher) -> None:
        self._client = client
        self._keys = keys
        self._dispatcher = dispatcher
        self._scripts = Scripts(client)

    def used_keys(self) -> list[str]:
        """The backlogs of all priorities, from high to replay. None without hand-off."""
        has_hand_off = self._dispatcher.first_queue(Priority.NORMAL) is not None
        return [self._keys.backlog(priority) for priority in Priority] if has_hand_off else []

    def fill_queues(self, priorities: Sequence[Priority] = tuple(Priority)) -> int:
        """Move first steps to their queues, as far as there are places. Returns how many. Does nothing without hand-off."""
        return sum(self._fill(priority) for priority in priorities)

    def _fill(self, priority: Priority) -> int:
        queue = self._dispatcher.first_queue(priority)
        if queue is None:
            return 0
        keys = first_step_keys(self._keys, queue, priority)
        pipe = self._client.pipeline(transaction=False)
        pipe.llen(keys.queue)
        pipe.zrange(keys.backlog, 0, PLACES - 1)
        length, waiting = pipe.execute()
        refs = refs_of(waiting[: max(0, PLACES - length)])
        if not refs:
            return 0
        steps = [FirstStep(member(ref), self._dispatcher.message(ref)) for ref in refs]
        return self._scripts.run(fill_queue(keys, places=PLACES, steps=steps))
