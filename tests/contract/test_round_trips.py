"""The number of a step's round trips to Redis, and the settlement that is sent along with a commit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry
from structlog.testing import capture_logs

from midwatch import Agent, tool
from midwatch.orchestration.admission.board import Board
from midwatch.orchestration.admission.redis_gate import RedisGate
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.protocol.calls import Call, Report
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.store_replies import TurnCommitted
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.schemas.job import JobStatus, Parent
from midwatch.schemas.limits import Limits
from midwatch.schemas.lineage import Bounds, Member
from midwatch.schemas.model import Usage
from midwatch.testing import ScriptedModel, call
from midwatch.workers.bench.context.replay import UnrenewedLeases
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.process.runtime import SystemClock
from tests.contract.store_bench import ending_of, results_of, trace_of, turn_of
from tests.properties.contents import HOUR_MS
from tests.properties.two_servers import Recorder, new_job

MODEL = "scripted:m-1"
OK = Report(usage=Usage(input_tokens=10, output_tokens=5))


class CountingConnection(redis_py.Connection):
    """A connection that counts its requests. It closes before a reply if `hang_up` is set."""

    trips = 0
    hang_up = False

    def send_packed_command(self, *args: Any, **options: Any) -> Any:
        CountingConnection.trips += 1
        return super().send_packed_command(*args, **options)

    def read_response(self, *args: Any, **options: Any) -> Any:
        if CountingConnection.hang_up:
            CountingConnection.hang_up = False
            super().read_response(*args, **options)  # the server has run the request
            self.disconnect()
            raise redis_py.ConnectionError("the cable was pulled")
        return super().read_response(*args, **options)


@pytest.fixture
def client(server: EmbeddedServer, prefix: str) -> Iterator[redis_py.Redis]:
    """A client that counts its round trips, and retries once after a broken connection as the workers' client does."""
    retry = Retry(NoBackoff(), 1, supported_errors=(redis_py.ConnectionError,))
    pool = redis_py.ConnectionPool.from_url(
        server.url, connection_class=CountingConnection, socket_timeout=5, retry=retry
    )
    yield redis_py.Redis(connection_pool=pool)
    pool.disconnect()


@pytest.fixture
def keys(prefix: str) -> Keyspace:
    return Keyspace(prefix)


@pytest.fixture
def store(client: redis_py.Redis, keys: Keyspace) -> RedisStore:
    return RedisStore(client, keys, Recorder(), lease_ms=HOUR_MS)


@pytest.fixture
def gate(client: redis_py.Redis, keys: Keyspace) -> RedisGate:
    limits = Limits(rpm=60_000, itpm=60_000_000)
    return RedisGate(client, keys, {MODEL: limits, "shop": limits}, 1, sleep_ms=SystemClock().sleep_ms)


@pytest.fixture
def own_gate(redis: redis_py.Redis, keys: Keyspace) -> RedisGate:
    """A gate with another client. The store must assume that it is on another server."""
    return RedisGate(redis, keys, {}, sleep_ms=SystemClock().sleep_ms)


@pytest.fixture
def claim(store: RedisStore) -> Claim:
    """Return the claim of a job's first step."""
    job = new_job("job-1", "s1")
    store.enqueue(job)
    claim = store.claim(job.ref, "n-1")
    assert isinstance(claim, Claim)
    return claim


def admit(gate: RedisGate, claim: Claim, to: str = MODEL) -> Call:
    one = Call(claim, to, lasts_ms=60_000, input_tokens=10, output_tokens=5)
    assert gate.admit(one) is None
    return one


def make_late(claim: Claim) -> Claim:
    """Return the claim of a worker whose lease has expired."""
    return replace(claim, fence=claim.fence - 1)


def in_flight(gate: RedisGate, name: str = MODEL) -> int:
    """Count the calls that are not settled yet."""
    return int(gate.client.hlen(gate.keys.downstream(name)[1]))  # type: ignore[arg-type]


# --- the number of round trips


@tool(inline=True, idempotent=True)
def look_up(order: str) -> str:
    """Find an order."""
    return f"{order} is at sea"


@tool(idempotent=True)
def weigh(order: str) -> str:
    """Weigh an order."""
    return "40 kg"


@tool(idempotent=True, downstream="shop")
def buy(order: str) -> str:
    """Buy."""
    return "bought"


@pytest.mark.parametrize(
    ("name", "of_turn", "of_call"),
    [
        pytest.param(
            "look_up", 4, 1, id="inline: claim, admit, settle and commit, commit of the result; a late message"
        ),
        pytest.param("weigh", 3, 2, id="own task: claim, admit, settle and commit; claim, commit"),
        pytest.param("buy", 3, 3, id="own task behind the gate: claim, admit, settle and commit, twice"),
    ],
)
def test_a_step_makes_no_more_round_trips_than_expected(
    store: RedisStore, gate: RedisGate, name: str, of_turn: int, of_call: int
) -> None:
    """A call's settlement is sent with the commit of its result. So is the settlement of the last turn."""
    model = ScriptedModel([call(name, order="A"), "Done."] * 2)
    agent = Agent("clerk", MODEL, "You help.", tools=[look_up, weigh, buy])
    clock = SystemClock()
    leases = UnrenewedLeases(store.renew, clock, HOUR_MS)
    runner = StepRunner(Services(store, Registry([agent]), lambda provider: model, gate, leases, clock, "w1"))

    def trips(job_id: str) -> list[int]:
        job = new_job(job_id, f"s-{job_id}", agent="clerk", agent_version=agent.version)
        store.enqueue(job)
        made = []
        for ref in (job.ref, job.ref.call(0), job.ref.model_turn(2)):
            before = CountingConnection.trips
            runner.run(ref)
            made.append(CountingConnection.trips - before)
        assert store.job(job_id).status is JobStatus.COMPLETED
        return made

    trips("job-1")  # loads the scripts, registers the downstream, reads the drift counters
    assert trips("job-2") == [of_turn, of_call, 3]
    assert (in_flight(gate), in_flight(gate, "shop")) == (0, 0)


@pytest.mark.parametrize(
    ("most", "of_turn"),
    [
        pytest.param(9, 6, id="as alone, and: state of the ancestors, reservation of the calls"),
        pytest.param(None, 5, id="no ancestor limits calls: nothing is reserved for them"),
    ],
)
def test_a_child_makes_no_more_round_trips_than_expected(
    store: RedisStore, gate: RedisGate, most: int | None, of_turn: int
) -> None:
    """Its turn and its tokens are reserved with the admission. A job without parent and children makes four: see above."""
    model = ScriptedModel([call("look_up", order="A"), "Done."] * 2)
    agent = Agent("clerk", MODEL, "You help.", tools=[look_up])
    clock = SystemClock()
    leases = UnrenewedLeases(store.renew, clock, HOUR_MS)
    runner = StepRunner(Services(store, Registry([agent]), lambda provider: model, gate, leases, clock, "w1"))
    root = new_job("root", "s-root")
    store.enqueue(root)
    ancestor = Member(job_id="root", session_id="s-root", bounds=Bounds(max_tool_calls=most, max_steps=50))
    parent = Parent(ref=root.ref.call(0), root_id="root", depth=1, ancestors=(ancestor,))
    for job_id in ("job-1", "job-2"):  # the first one loads the scripts
        job = new_job(job_id, f"s-{job_id}", agent="clerk", agent_version=agent.version, parent=parent)
        store.enqueue(job)
        before = CountingConnection.trips
        runner.run(job.ref)
        made = CountingConnection.trips - before
        runner.run(job.ref.model_turn(2))
        assert store.job(job_id).status is JobStatus.COMPLETED
    assert made == of_turn


# --- a settlement sent along with a commit


def commits(store: RedisStore, claim: Claim, verb: str, piggyback: Any) -> bool:
    """Return one of the three commits that can carry a settlement."""
    match verb:
        case "commit_turn":
            return store.commit_turn(claim, turn_of(claim), piggyback) is not TurnCommitted.LOST
        case "commit_results":
            return store.commit_results(claim, results_of(claim, claim.ref), piggyback)
        case _:
            return store.finish(claim, ending_of(claim, JobStatus.COMPLETED), trace_of(claim, "complete"), piggyback)


@pytest.mark.parametrize("verb", ["commit_turn", "commit_results", "finish"])
def test_a_settlement_counts_even_if_the_lease_is_lost(
    store: RedisStore, gate: RedisGate, claim: Claim, verb: str
) -> None:
    """The late result is dropped, but the call's reservation is given back."""
    one = admit(gate, claim)
    assert commits(store, make_late(claim), verb, gate.make_piggyback(one, OK)) is False
    assert in_flight(gate) == 0


def test_a_lost_reply_settles_and_commits_once(store: RedisStore, gate: RedisGate, claim: Claim) -> None:
    """Settlement and commit are sent a second time. Neither counts twice."""
    store.commit_turn(
        make_late(claim), turn_of(claim), gate.make_piggyback(admit(gate, claim), OK)
    )  # loads the scripts
    one = admit(gate, claim)
    CountingConnection.hang_up = True
    assert store.commit_turn(claim, turn_of(claim), gate.make_piggyback(one, OK)) is TurnCommitted.COMMITTED
    assert not CountingConnection.hang_up
    assert len(store.trace(claim.ref)) == 1
    status = Board(gate.client, gate.keys).show(MODEL)
    assert (status.admitted, status.ok, status.live) == (2, 2, 0)


def test_scripts_are_sent_again_after_the_server_forgot_them(store: RedisStore, gate: RedisGate, claim: Claim) -> None:
    """Scripts of both libraries are sent again within the same call. A script that has already run does not run twice."""
    one = admit(gate, claim)
    gate.client.script_flush()
    gate.client.function_flush()
    assert store.commit_turn(claim, turn_of(claim), gate.make_piggyback(one, OK)) is TurnCommitted.COMMITTED
    assert in_flight(gate) == 0
    assert len(store.trace(claim.ref)) == 1


def test_a_refused_settlement_does_not_lose_the_commit(store: RedisStore, gate: RedisGate, claim: Claim) -> None:
    """The coordinator refuses an invalid report. The commit counts nevertheless, and the log says what was lost."""
    one = admit(gate, claim)
    with capture_logs() as logs:
        senseless = gate.make_piggyback(one, Report(latency_ms=-1))
        assert store.commit_turn(claim, turn_of(claim), senseless) is TurnCommitted.COMMITTED
    assert [line["event"] for line in logs] == ["gate.settle_lost"]
    assert len(store.trace(claim.ref)) == 1


def test_a_coordinator_on_another_server_gets_its_own_round_trip(
    store: RedisStore, keys: Keyspace, claim: Claim, own_gate: RedisGate
) -> None:
    """Two servers need two round trips. The call is settled before the commit, as on one server."""
    one = admit(own_gate, claim)
    store.commit_turn(make_late(claim), turn_of(claim))  # loads the script
    before = CountingConnection.trips
    assert store.commit_turn(claim, turn_of(claim), own_gate.make_piggyback(one, OK)) is TurnCommitted.COMMITTED
    assert CountingConnection.trips - before == 1
    assert in_flight(own_gate) == 0
