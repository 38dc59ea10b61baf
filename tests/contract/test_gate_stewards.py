"""Coordinator and store together, as a steward sees them: waiting steps are published, and cancelled steps make room."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis as redis_py

from midwatch import Client
from midwatch.orchestration.keyspace import Key, partition
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.store.damage.data_watch import DataWatch
from midwatch.orchestration.store.records import member
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import Defer, StepRef
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.process.steward import Steward
from midwatch.workers.settings import Settings
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits
from tests.contract.store_bench import ending_of, trace_of
from tests.properties.two_servers import expire_step, new_job


@pytest.fixture
def extra_keys() -> tuple[Key, ...]:
    return (CLOCK_KEY,)


class Fleet:
    """A store, a gate on test time and a steward. The test makes the workers' calls."""

    def __init__(self, settings: Settings, redis: redis_py.Redis) -> None:
        self.client: Client = make_client(settings)
        self.bench = GateBench(redis, settings.prefix, {SHOP: limits(rpm=60)})
        self.bench.warm()
        self.client.gate = self.bench.board
        store = self.client.store
        runtime = SimpleNamespace(
            client=self.client, settings=settings, worker="steward", data_watch=DataWatch(store.client, store.keys)
        )
        self.steward = Steward(cast(Any, runtime))

    def enqueue(self, name: str) -> StepRef:
        """Enqueue a job in a new session."""
        job = new_job(name, f"s-{name}")
        assert self.client.store.enqueue(job)
        return job.ref

    def claim(self, ref: StepRef) -> Claim:
        """Claim the step for a worker."""
        claim = self.client.store.claim(ref, f"nonce-{self.bench.time.us}-{ref.job_id}")
        assert isinstance(claim, Claim), claim
        return claim

    def waits(self, name: str) -> StepRef:
        """Enqueue a job whose first call must wait in line."""
        ref = self.enqueue(name)
        claim = self.claim(ref)
        answer = self.bench.gate.admit(self.call(claim))
        assert isinstance(answer, Defer)
        assert answer.wakes
        assert self.client.store.defer(claim, answer, trace_of(claim, "defer"))
        return ref

    def call(self, claim: Claim) -> Any:
        """Return the model call of a claimed step."""
        return self.bench.call(claim.ref.job_id).__class__(claim, SHOP, lasts_ms=60_000)

    def owed(self, ref: StepRef) -> bool:
        """Return whether the step is published."""
        index = self.client.operations.keys.index(partition(ref.session_id), "owed")
        return self.client.store.client.zscore(index, member(ref)) is not None

    def sweep(self, seconds: float) -> None:
        """Let time pass, with a steward that looks twice a second."""
        for _ in range(int(2 * seconds)):
            self.bench.time.pass_s(0.5)
            for _ in range(100):
                if self.steward.sweep() != 0:
                    break


@pytest.fixture
def fleet(server: EmbeddedServer, redis: redis_py.Redis, prefix: str) -> Iterator[Fleet]:
    made = Fleet(Settings(redis_url=server.url, prefix=prefix, limits={}), redis)
    yield made
    made.client.store.client.close()


def test_a_step_in_line_is_published_when_it_may_start(fleet: Fleet) -> None:
    """A step in line has no message. When its call may start, the step is published, claimed and admitted."""
    fleet.bench.admit_all(fleet.bench.call("now"))
    ref = fleet.waits("waits")
    fleet.sweep(0.5)
    assert not fleet.owed(ref)
    fleet.sweep(1)
    assert fleet.owed(ref)
    fleet.bench.admit_all(fleet.call(fleet.claim(ref)))


def test_cancelled_jobs_make_room_at_once(fleet: Fleet) -> None:
    """Twenty jobs in line are cancelled. The job behind them does not wait until a steward has woken each of them."""
    fleet.bench.admit_all(fleet.bench.call("now"))
    gone = [fleet.waits(f"gone-{n}") for n in range(20)]
    last = fleet.waits("last")
    for ref in gone:
        assert fleet.client.jobs.cancel(ref.job_id)
        claim = fleet.claim(ref)
        assert claim.ending == "cancelled"
        assert fleet.client.store.finish(claim, ending_of(claim, JobStatus.CANCELLED), trace_of(claim, "cancelled"))
    fleet.sweep(5)
    assert fleet.owed(last)
    fleet.bench.admit_all(fleet.call(fleet.claim(last)))
    assert fleet.bench.status().woken == 0


def test_job_that_ended_leaves_the_line_of_a_downstream_that_is_away(fleet: Fleet) -> None:
    """While a downstream is away, few calls are tried. None of these trials is spent on a job that has ended."""
    fleet.bench.admit_all(fleet.bench.call("now"))
    for ref in [fleet.waits(f"ended-{n}") for n in range(20)]:
        fleet.bench.gate.leave_line(ref, SHOP)
    last = fleet.waits("last")
    assert fleet.bench.status().waiters == 1
    fleet.bench.board.open(SHOP, 5)
    fleet.sweep(6)
    assert fleet.owed(last)


def test_dead_jobs_in_line_spend_no_trials_of_a_downstream_that_was_away(fleet: Fleet) -> None:
    """Jobs that ended without leaving the line are forgotten when they are woken, and the next call is woken at once."""
    fleet.bench.admit_all(fleet.bench.call("now"))
    gone = [fleet.waits(f"gone-{n}") for n in range(20)]
    last = fleet.waits("last")
    for ref in gone:
        assert fleet.client.jobs.cancel(ref.job_id)
        claim = fleet.claim(ref)
        assert fleet.client.store.finish(claim, ending_of(claim, JobStatus.CANCELLED), trace_of(claim, "cancelled"))
    fleet.bench.board.open(SHOP, 5)
    fleet.sweep(7)
    assert fleet.owed(last)


def test_a_step_that_is_published_already_keeps_its_place(fleet: Fleet) -> None:
    """The step asked again, and its message is in a queue when its turn comes. It is woken, not forgotten."""
    fleet.bench.admit_all(fleet.bench.call("now"))
    first, second = fleet.waits("first"), fleet.waits("second")
    expire_step(fleet.client.store.client, fleet.client.operations.keys, first)
    fleet.steward.sweep()
    assert (fleet.owed(first), fleet.owed(second)) == (True, False)
    fleet.sweep(1)
    assert not fleet.owed(second)
    fleet.bench.admit_all(fleet.call(fleet.claim(first)))
