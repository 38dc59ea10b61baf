"""The backlog: the queue of first steps is short, tenants take turns behind it, and no step is lost or published twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.store.backlog import PLACES
from midwatch.schemas.job import Parent
from midwatch.schemas.step import Priority, StepRef
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.celery_app.write_message import queue_key
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.settings import Settings
from tests.properties.two_servers import new_job

NORMAL = Priority.NORMAL


class Fleet:
    """A producer and a steward. The test takes messages, as a worker does."""

    def __init__(self, url: str, prefix: str) -> None:
        self.client: Client = make_client(Settings(redis_url=url, prefix=prefix))
        self.redis: Any = self.client.store.client
        self.operations = self.client.operations
        self.queue = queue_key(self.operations.keys.queue("model"), NORMAL, first=True)

    def enqueue(self, *names: str, tenant: str | None = None, **fields: Any) -> None:
        """Enqueue jobs, each in a new session."""
        for name in names:
            assert self.client.store.enqueue(new_job(name, f"s-{name}", tenant=tenant, **fields))

    def take(self) -> str:
        """Take the next first step from its queue. Returns its job."""
        message = self.redis.rpop(self.queue)
        assert message, "the queue is empty"
        return message.decode().partition('"root_id":"')[2].partition('"')[0]

    def waiting(self) -> int:
        """The number of steps in the backlog."""
        return self.redis.zcard(self.operations.keys.backlog(NORMAL))

    def run(self, jobs: int) -> list[str]:
        """Take first steps and claim them. Fill the queue after each."""
        went = []
        for _ in range(jobs):
            went.append(self.take())
            self.operations.backlog.fill_queues()
        return went


@pytest.fixture
def fleet(server: EmbeddedServer, prefix: str) -> Iterator[Fleet]:
    made = Fleet(server.url, prefix)
    yield made
    made.client.store.client.close()


def test_the_queue_of_first_steps_is_short(fleet: Fleet) -> None:
    """Further first steps wait in the backlog. All begin in the order in which they were enqueued."""
    names = [f"j{n:03}" for n in range(3 * PLACES)]
    fleet.enqueue(*names)
    assert (fleet.redis.llen(fleet.queue), fleet.waiting()) == (PLACES, 2 * PLACES)
    assert fleet.run(len(names)) == names
    assert fleet.waiting() == 0


def test_tenants_take_turns_in_the_backlog(fleet: Fleet) -> None:
    """A second tenant waits for what is in the queue already, and then takes turns with the first one."""
    fleet.enqueue(*(f"flood-{n}" for n in range(200)), tenant="flood")
    fleet.enqueue(*(f"other-{n}" for n in range(5)), tenant="other")
    went = fleet.run(PLACES + 12)
    assert not any(job.startswith("other") for job in went[:PLACES])
    assert sum(job.startswith("other") for job in went[PLACES:]) == 5


def test_a_new_job_does_not_pass_the_backlog(fleet: Fleet) -> None:
    """There is a place in the queue, and others wait. A new job of the same tenant waits behind them."""
    fleet.enqueue(*(f"j{n}" for n in range(PLACES + 2)))
    fleet.take()
    fleet.enqueue("late")
    fleet.operations.backlog.fill_queues()
    assert fleet.run(PLACES + 2)[-3:] == [f"j{PLACES}", f"j{PLACES + 1}", "late"]


def test_a_step_in_the_backlog_is_owed_and_not_published_twice(fleet: Fleet) -> None:
    """A steward finds steps whose message was lost. One that waits in the backlog has none, however long it waits."""
    fleet.enqueue(*(f"j{n}" for n in range(PLACES + 3)))
    for _ in range(2):
        found = published_again(fleet)
        assert len(found) == PLACES
    assert not {f"j{PLACES + n}" for n in range(3)} & found


def published_again(fleet: Fleet) -> set[str]:
    """What a steward publishes when each owed step is old."""
    for partition in range(16):
        owed = fleet.operations.keys.index(partition, "owed")
        for member in fleet.redis.zrange(owed, 0, -1):
            fleet.redis.zadd(owed, {member: 1})
    _, refs, _ = fleet.operations.find_due_and_owed(patience_ms=0, stale_ms=0, idle=(True, True))
    return {ref.job_id for ref in refs}


def test_a_step_that_is_lost_after_the_backlog_is_found(fleet: Fleet) -> None:
    """A worker took its message and died. The step is owed, so a steward publishes it again."""
    fleet.enqueue(*(f"j{n}" for n in range(PLACES + 1)))
    fleet.run(PLACES + 1)
    assert published_again(fleet) == {f"j{n}" for n in range(PLACES + 1)}


def test_two_stewards_move_a_step_once(fleet: Fleet, server: EmbeddedServer, prefix: str) -> None:
    """Both read the same steps of the backlog before one of them moves them. The queue never holds more than its places."""
    fleet.enqueue(*(f"j{n}" for n in range(2 * PLACES)))
    for _ in range(PLACES // 2):
        fleet.take()
    other = Fleet(server.url, prefix)
    assert fleet.operations.backlog.fill_queues() == PLACES // 2
    assert other.operations.backlog.fill_queues() == 0
    assert (fleet.redis.llen(fleet.queue), fleet.waiting()) == (PLACES, PLACES // 2)
    other.client.store.client.close()


def test_a_session_that_hands_over_its_jobs_passes_no_backlog(fleet: Fleet) -> None:
    """When a job ends, its session's next one is published. It takes turns with jobs that wait in the backlog."""
    fleet.enqueue(*(f"j{n}" for n in range(PLACES + 5)))
    refs = [StepRef(job_id=f"next-{n}", session_id=f"chat-{n}", step="1") for n in range(3)]
    fleet.operations.publish(refs)
    assert fleet.redis.llen(fleet.queue) == PLACES
    went = fleet.run(PLACES + 5)[PLACES:]
    assert any(job.startswith("next") for job in went)
    assert any(job.startswith("j") for job in went)


def test_first_step_of_a_child_waits_in_no_backlog(fleet: Fleet) -> None:
    """Its parent has begun. Its message goes to the queue of the other steps."""
    fleet.enqueue(*(f"j{n}" for n in range(PLACES + 1)))
    parent = Parent(ref=StepRef(job_id="p", session_id="s-p", step="1.0"), root_id="p", depth=1)
    fleet.enqueue("child", parent=parent)
    assert fleet.redis.llen(queue_key(fleet.operations.keys.queue("model"), NORMAL)) == 1
    assert fleet.waiting() == 1


def test_an_empty_backlog_leaves_no_keys(fleet: Fleet, redis: redis_py.Redis) -> None:
    """Tenants that have no more jobs there are forgotten."""
    fleet.enqueue(*(f"j{n}" for n in range(PLACES + 1)), tenant="acme")
    fleet.run(PLACES + 1)
    assert not redis.exists(fleet.operations.keys.backlog(NORMAL), fleet.operations.keys.backlog_tenants(NORMAL))
