"""Redis is down when calls ask for admission: nothing is sent, producers get an error at once, and accepted work is not lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_py

from midwatch import Agent
from midwatch.orchestration.admission.redis_gate import RedisGate
from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.protocol.calls import Call, Report, Settlement
from midwatch.schemas.job import JobStatus
from midwatch.schemas.limits import Limits
from midwatch.schemas.model import Usage
from midwatch.testing import InlineFleet, ScriptedModel
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.redis_connection import connect_redis
from midwatch.workers.simulator import Conversation, ModelServer, Say, Use
from tests.faults.crew import Crew
from tests.faults.outage_agents import keeper
from tests.patience import PATIENCE_S, wait_for
from tests.unit.claims import claim_of

MODEL = str(keeper.model)
LASTS_S = 4.0
"""Longer than a lease (1.5 s)."""
SLOTS = 8
"""Threads of the worker. No more calls than that can be admitted and not yet answered."""

Do = Callable[[EmbeddedServer, redis_py.Redis], object]


def is_full(server: EmbeddedServer, client: redis_py.Redis) -> None:
    """Leave the server no room for a single write."""
    client.config_set("maxmemory", "1mb")


def has_room(server: EmbeddedServer, client: redis_py.Redis) -> None:
    """Restore the room."""
    client.config_set("maxmemory", "0")


OUTAGES: dict[str, tuple[Do, Do]] = {
    "killed": (lambda server, client: server.kill(), lambda server, client: server.restart()),
    "frozen": (lambda server, client: server.freeze(), lambda server, client: server.thaw()),
    "full": (is_full, has_room),
}


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that may be killed, and that keeps its data."""
    with EmbeddedServer(tmp_path_factory.mktemp("outage") / "server", append_only="always") as server:
        yield server


# --- one process


def the_agent() -> Agent:
    """The agent must run without a server."""
    return Agent("keeper", "scripted:m-1", "Keep the log.")


@pytest.fixture
def gate(own_server: EmbeddedServer) -> Iterator[RedisGate]:
    """A worker's gate, with the settings of a worker's connections."""
    with connect_redis(own_server.url) as client:
        client.flushall()
        yield RedisGate(client, Keyspace("gate"), {"scripted:m-1": Limits(requests_per_minute=6_000)}, version=1)


@pytest.mark.parametrize("kind", OUTAGES)
def test_a_call_without_admission_is_not_made(own_server: EmbeddedServer, gate: RedisGate, kind: str) -> None:
    """The coordinator is down and the store is not. The step is deferred with the reason, and completes after the outage."""
    model = ScriptedModel(["Nothing in sight."])
    fleet = InlineFleet(the_agent(), model=model, gate=gate)
    job = fleet.enqueue(the_agent(), "Anything in sight?")
    begin, end = OUTAGES[kind]
    begin(own_server, gate.client)
    try:
        with pytest.raises(StoreUnavailable):
            fleet.runner.run(fleet.published.popleft())
        assert model.requests == []
    finally:
        end(own_server, gate.client)
    fleet.clock.advance(fleet.store.lease_ms + 1)
    assert fleet.run(job).status is JobStatus.COMPLETED
    assert len(model.requests) == 1


@pytest.mark.parametrize("kind", OUTAGES)
def test_an_answer_is_kept_if_its_settlement_fails(own_server: EmbeddedServer, gate: RedisGate, kind: str) -> None:
    """The finished work is worth more than its accounting, which is corrected when the reservation ends."""
    call = Call(claim_of("1"), "scripted:m-1", lasts_ms=100)
    assert gate.admit(call) is None
    begin, end = OUTAGES[kind]
    begin(own_server, gate.client)
    try:
        assert gate.settle(call, Report(usage=Usage(input_tokens=1, output_tokens=1))) == Settlement(
            downstream="scripted:m-1"
        )
    finally:
        end(own_server, gate.client)


# --- a fleet


def rules(conversation: Conversation) -> Say | Use:
    """Make three log entries, then end."""
    written = len(conversation.results("log"))
    return Use([("log", {"entry": f"watch {written + 1}"})]) if written < 3 else Say("The log is kept.")


@pytest.mark.parametrize("kind", OUTAGES)
def test_a_fleet_sends_nothing_while_redis_is_down(own_server: EmbeddedServer, tmp_path: Path, kind: str) -> None:
    """Twenty jobs run, with a limit and calls in line.

    Only calls that were already admitted are sent, and all jobs complete after the outage. A producer is refused during the
    outage. What was accepted is kept, and a refused job can be enqueued again, once.
    """
    limits = json.dumps({MODEL: {"rpm": 600}})
    with (
        ModelServer(rules, latency_ms=(50, 200)) as model,
        Crew(
            tmp_path, own_server, f"outage-{kind}", **model.environment(),
            MIDWATCH_AGENTS="tests.faults.outage_agents", MIDWATCH_LIMITS=limits,
        ) as crew,
    ):  # fmt: skip
        crew.worker("worker", "threads", SLOTS)
        jobs = [crew.enqueue(f"night {n}", agent="keeper") for n in range(20)]
        wait_for(lambda: model.stats().requests >= 12, "the work to be under way")
        begin, end = OUTAGES[kind]
        begin(own_server, crew.client.store.client)
        away = model.stats()
        try:
            asked_s = time.monotonic()
            with pytest.raises(StoreUnavailable):
                crew.enqueue("night 20", agent="keeper", idempotency_key="the-last")
            time.sleep(max(0.0, LASTS_S - (time.monotonic() - asked_s)))
        finally:
            back = model.stats()
            end(own_server, crew.client.store.client)
        jobs += [crew.enqueue("night 20", agent="keeper", idempotency_key="the-last") for _ in range(2)]
        results = [job.result(PATIENCE_S) for job in jobs]
        assert {result.output for result in results} == {"The log is kept."}
        assert jobs[-1].id == jobs[-2].id
        on_their_way = back.requests - away.requests
        assert away.in_flight + on_their_way <= SLOTS, "each slot sends only the call that was already admitted"
        assert model.stats().requests >= 21 * 4
        wait_for(lambda: crew.client.gate.show(MODEL).live == 0, "the reservations to return")
