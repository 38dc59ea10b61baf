"""Waiting for a job survives a server that restarts, and a broker that is dead keeps no producer waiting."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import redis as redis_py

from midwatch.errors import JobTimeout, NotFound, StoreUnavailable
from midwatch.orchestration.client import patience
from midwatch.orchestration.client.handle import JobHandle
from midwatch.orchestration.client.letters.dead_letters import DeadLetters
from midwatch.orchestration.client.letters.replays import Replays
from midwatch.orchestration.errors import BrokerUnavailable
from midwatch.orchestration.keyspace import PARTITIONS
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.store.letters import Letters
from midwatch.schemas.job import JobStatus
from midwatch.workers.celery_app import dispatch
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.cli import watch_loop
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.settings import Settings
from tests.contract.store_bench import Bench, ending_of, redis_bench, trace_of, turn_of
from tests.properties.two_servers import new_job


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server with a file, which the tests kill and start again."""
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def bench(own_server: EmbeddedServer) -> Iterator[Bench]:
    client = redis_py.Redis.from_url(own_server.url, socket_timeout=2, socket_connect_timeout=1)
    client.flushall()
    yield redis_bench(client, "mw")
    client.close()


def blink(server: EmbeddedServer, bench: Bench, claim: Any) -> threading.Thread:
    """Kill the server. After a short time, start it again and let the job complete."""
    server.kill()

    def come_back() -> None:
        time.sleep(0.4)
        server.restart()
        assert bench.store.finish(claim, ending_of(claim, JobStatus.COMPLETED), trace_of(claim, "completed"))

    thread = threading.Thread(target=come_back)
    thread.start()
    return thread


def handle_of(bench: Bench) -> JobHandle:
    return JobHandle(bench.operations, "job-1", "s1")


def test_result_waits_for_a_server_that_restarts(own_server: EmbeddedServer, bench: Bench) -> None:
    """The reported case: it raised *nothing was recorded*, while the job completed."""
    claim = bench.begin()
    back = blink(own_server, bench, claim)
    try:
        assert handle_of(bench).result(30).output == "done"
    finally:
        back.join()


def test_events_go_on_after_a_server_that_restarts(own_server: EmbeddedServer, bench: Bench) -> None:
    """Each record comes once, those from before the restart and those from after it."""
    claim = bench.begin()
    assert bench.store.commit_turn(claim, turn_of(claim))
    events = handle_of(bench).events(follow=True)
    seen = list(islice(events, 1))
    back = blink(own_server, bench, bench.claim(claim.ref.model_turn(2)))
    try:
        seen += events
    finally:
        back.join()
    assert [record.step for record in seen] == ["1", "2"]


def test_a_wait_that_ends_during_an_outage_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """JobTimeout says that the state is not known. It does not say that nothing was recorded."""
    handle = JobHandle(make_client(Settings(redis_url="redis://127.0.0.1:1/0")).operations, "job-1", "s1")
    with pytest.raises(JobTimeout, match=r"is not known after 0\.2 s, because Redis does not answer") as caught:
        handle.result(0.2)
    assert "recorded" not in str(caught.value)
    monkeypatch.setattr(patience, "PATIENCE_S", 0.2)
    for wait in (handle.result, lambda: list(handle.events(follow=True))):
        with pytest.raises(StoreUnavailable, match="Redis did not answer") as caught_by_wait:
            wait()
        assert "recorded" not in str(caught_by_wait.value)
    with pytest.raises(StoreUnavailable):
        next(handle.events())


def test_a_job_that_is_gone_is_not_called_never_enqueued(bench: Bench) -> None:
    """The handle knows that the job was there. A lost pointer alone is written again."""
    bench.begin()
    handle = handle_of(bench)
    bench.client.delete(bench.keys.job_pointer("job-1"))
    assert handle.status() is JobStatus.RUNNING
    assert bench.client.get(bench.keys.job_pointer("job-1")) == b"s1"
    bench.client.flushall()
    with pytest.raises(NotFound, match="is gone: Redis has lost its data, or the retention is over"):
        handle.result(1)


def test_a_bulk_replay_waits_for_a_server_that_restarts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the letters, replaying them and looking at them goes on when the server answers again."""
    bench.to_dead_letter()
    replay = DeadLetters(bench.operations).replay_all()
    for owner, name in ((Replays, "judge"), (Replays, "replay_each"), (Letters, "pages")):
        monkeypatch.setattr(owner, name, fail_once(getattr(owner, name)))
    for _ in replay.run():
        if bench.operations.job("job-1").status is JobStatus.RUNNING:
            claim = bench.take(new_job("job-1", "s1").ref)
            assert isinstance(claim, Claim)
            assert bench.store.finish(claim, ending_of(claim, JobStatus.COMPLETED), trace_of(claim, "completed"))
    assert (replay.replayed, [group.passed for group in replay.groups]) == (1, [1])


def fail_once(method: Callable[..., Any]) -> Callable[..., Any]:
    failed: list[bool] = []

    def call(*args: Any, **options: Any) -> Any:
        if not failed:
            failed.append(True)
            raise StoreUnavailable("away")
        return method(*args, **options)

    return call


def test_watching_as_lines_survives_a_blink(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a short outage `gate status --watch --json` has printed one line less. A long outage ends it with an
    error."""
    monkeypatch.setattr(watch_loop, "EVERY_S", 0.0)
    monkeypatch.setattr(patience, "PATIENCE_S", 0.3)
    answers: list[Any] = [{"n": 1}, StoreUnavailable("away"), {"n": 2}]

    def look() -> object:
        answer = answers.pop(0) if answers else StoreUnavailable("away for good")
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(StoreUnavailable, match="for good"):
        watch_loop.print_lines(look)
    assert capsys.readouterr().out.splitlines() == ['{"n":1}', '{"n":2}']


# --- a broker of its own


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts connections and sends nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


BROKERS: dict[str, Callable[[str], str]] = {
    "refused": lambda silent: "redis://127.0.0.1:1/0",
    "silent": lambda silent: f"redis://{silent}/0",
    "silent amqp": lambda silent: f"amqp://{silent}//",
    "no such name": lambda silent: "redis://nosuch.invalid:6379/0",
}


@pytest.mark.parametrize("broker", BROKERS)
def test_a_dead_broker_loses_and_doubles_nothing(
    server: EmbeddedServer, prefix: str, silent: str, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is stored and owed, and the log says so with the cause. A repetition with the same key finds the same job."""
    monkeypatch.setattr(dispatch, "PUBLISH_S", 0.5)
    client = make_client(Settings(redis_url=server.url, broker_url=BROKERS[broker](silent), prefix=prefix))
    first = client.enqueue("plain", "hello", idempotency_key="order-1")
    again = client.enqueue("plain", "hello", idempotency_key="order-1")
    assert (first.accepted, again.accepted, again.id) == (True, False, first.id)
    assert sum(client.store.client.zcard(client.operations.keys.index(p, "owed")) for p in range(PARTITIONS)) == 1
    ref = client.operations.first_step(client.jobs.show(first.id))
    with pytest.raises(BrokerUnavailable, match="Steps that are stored stay owed"):
        client.operations.publish((ref,))
    client.store.client.close()
