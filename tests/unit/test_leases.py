"""The keeper of leases: no effect begins without a lease, and a keeper that stops is noticed."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from midwatch import Agent, tool
from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.store_replies import LeaseState
from midwatch.orchestration.steps.leases import LeaseKeeper
from midwatch.orchestration.testing.inline_fleet import InlineFleet
from midwatch.orchestration.testing.manual_clock import ManualClock
from midwatch.testing import ScriptedModel, call
from tests.unit.claims import claim_of

LEASE_MS = 3_000


class Frozen(LeaseKeeper):
    """A keeper whose thread never runs."""

    def _work(self) -> None:
        threading.Event().wait(30)


class Store:
    """Answers renewals with the results that a test sets."""

    def __init__(self) -> None:
        self.answer: LeaseState | Exception = LeaseState.HELD
        self.renewals = 0

    def renew(self, claim: Claim) -> LeaseState:
        self.renewals += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_a_fresh_lease_needs_no_renewal(store: Store, clock: ManualClock) -> None:
    """A usual step sends no renewal, because it has just claimed."""
    keeper = Frozen(store.renew, clock, LEASE_MS)
    with keeper.hold(claim_of(), 60_000) as hold:
        assert keeper.has_lease(hold, clock.monotonic_ms())
        assert store.renewals == 0
        assert keeper.has_lease(hold, clock.monotonic_ms() - 2_000)
    assert store.renewals == 1, "the lease began earlier than the hold"


@pytest.mark.parametrize(
    ("answer", "after_ms", "has_lease"),
    [
        (LeaseState.HELD, 2_000, True),
        (LeaseState.HELD, 9_000, True),
        (LeaseState.LOST, 2_000, False),
        (StoreUnavailable("away"), 2_000, True),
        (StoreUnavailable("away"), 3_000, False),
        (RuntimeError("odd"), 3_000, False),
    ],
)
def test_an_overdue_lease_is_renewed_before_an_effect_begins(
    store: Store, clock: ManualClock, answer: Any, after_ms: int, has_lease: bool
) -> None:
    """The thread was starved. A lease that can't be renewed and is over allows no effect."""
    keeper = Frozen(store.renew, clock, LEASE_MS)
    with keeper.hold(claim_of(), 60_000) as hold:
        clock.advance(after_ms)
        store.answer = answer
        with capture_logs():
            assert keeper.has_lease(hold) is has_lease
        assert store.renewals == 1
        assert keeper.is_over(hold) is not has_lease


def test_a_keeper_that_stalls_is_logged_once(store: Store, clock: ManualClock) -> None:
    """Each new step looks at the keeper. One line says for how long it has not turned."""
    keeper = Frozen(store.renew, clock, LEASE_MS)
    with keeper.hold(claim_of(), 60_000):
        clock.advance(LEASE_MS + 1)
        with capture_logs() as logs:
            for _ in range(2):
                with keeper.hold(claim_of(), 60_000):
                    pass
    assert [(entry["event"], entry["late_ms"]) for entry in logs] == [("lease.keeper_stalled", LEASE_MS + 1)]


def test_a_keeper_that_died_is_replaced(store: Store, clock: ManualClock) -> None:
    """The next step starts a new thread, and a line says so."""

    class Dying(LeaseKeeper):
        def _work(self) -> None:
            return

    keeper = Dying(store.renew, clock, LEASE_MS)
    with keeper.hold(claim_of(), 60_000):
        pass
    thread = cast(threading.Thread, keeper._thread)
    thread.join()
    with capture_logs() as logs, keeper.hold(claim_of(), 60_000):
        assert keeper._thread is not thread
    assert [entry["event"] for entry in logs] == ["lease.keeper_died"]


def test_an_error_does_not_end_the_keeper(store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error of one round is logged, and the next round renews."""
    turns: list[int] = []
    done = threading.Event()

    class Failing(LeaseKeeper):
        def _turn(self) -> None:
            turns.append(1)
            if len(turns) == 1:
                raise RuntimeError("odd")
            done.set()
            threading.Event().wait(30)

    with capture_logs() as logs, Failing(store.renew, clock, LEASE_MS).hold(claim_of(), 60_000):
        assert done.wait(10)
    assert [entry["event"] for entry in logs] == ["lease.keeper_broke"]


def test_no_tool_runs_when_its_lease_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was stopped between claim and call. The call does not begin, and the next claim runs it."""
    ran: list[int] = []

    @tool(idempotent=True)
    def pay(n: int) -> str:
        """Pay."""
        ran.append(n)
        return "paid"

    agent = Agent("payer", "scripted:m-1", "You pay.", tools=[pay])
    fleet = InlineFleet(agent, model=ScriptedModel([[call("pay", n=1)], "done"]))
    leases = fleet.runner.services.leases
    verdicts = [True, False]
    monkeypatch.setattr(leases, "has_lease", lambda *_: verdicts.pop(0) if verdicts else True)
    job_id = fleet.enqueue(agent, "pay 1")
    for _ in range(2):
        fleet.runner.run(fleet.published.popleft())
    assert ran == []
    fleet.clock.advance(5_000)
    assert fleet.run(job_id).output == "done"
    assert ran == [1]


def test_a_long_call_learns_that_its_lease_is_over(store: Store, clock: ManualClock) -> None:
    """`context.is_cancelled()` is true from the end of the lease on, so that a careful tool stops before others begin."""
    keeper = Frozen(store.renew, clock, LEASE_MS)
    with keeper.hold(claim_of(), 60_000) as hold:
        clock.advance(LEASE_MS - 1)
        assert not keeper.is_over(hold)
        clock.advance(1)
        assert keeper.is_over(hold)
