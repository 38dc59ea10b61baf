"""Redis dies, freezes, fills up, becomes a replica or loses its last seconds. No finished work is lost or done again."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from midwatch import Client, JobHandle
from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.commits import TurnCommit
from midwatch.orchestration.protocol.store_replies import TurnCommitted
from midwatch.orchestration.store.conversation.log_cache import decode, encode
from midwatch.orchestration.tokens.weight import weigh_all
from midwatch.schemas.message import AssistantMessage, NoteMessage, Text
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Continue, StepKind, StepRef
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.process import Member
from midwatch.workers.settings import Settings
from tests.faults.crew import Crew, children
from tests.faults.plan import calls
from tests.faults.poison_letters import GOOD_START, start
from tests.patience import PATIENCE_S, wait_for

LONG_S, SHORT_S = 5.0, 2.5
"""How long an outage lasts. Both values are longer than a lease."""


@dataclass(frozen=True)
class Outage:
    """One way for a server to be down, and how it returns."""

    begin: Callable[[EmbeddedServer, Crew], object]
    end: Callable[[EmbeddedServer, Crew], object]
    lasts_s: float = SHORT_S


def command(*words: str) -> Callable[[EmbeddedServer, Crew], object]:
    """Return an outage that is a command to the server, and its end."""
    return lambda server, crew: crew.client.store.client.execute_command(*words)  # type: ignore[no-untyped-call]


def fill_disk(server: EmbeddedServer, crew: Crew) -> None:
    """Make snapshots fail (a folder has the file's name), so that the server refuses writes."""
    (server.directory / "dump.rdb").mkdir()
    client = crew.client.store.client
    client.config_set("save", "3600 1000000")
    client.bgsave()
    wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the snapshot to fail")


def free_disk(server: EmbeddedServer, crew: Crew) -> None:
    """Let the next snapshot succeed."""
    (server.directory / "dump.rdb").rmdir()
    crew.client.store.client.bgsave()
    crew.client.store.client.config_set("save", "")


OUTAGES = {
    "killed": Outage(lambda server, crew: server.kill(), lambda server, crew: server.restart(), LONG_S),
    "frozen": Outage(lambda server, crew: server.freeze(), lambda server, crew: server.thaw(), LONG_S),
    "full": Outage(command("CONFIG", "SET", "maxmemory", "1mb"), command("CONFIG", "SET", "maxmemory", "0")),
    "replica": Outage(command("REPLICAOF", "127.0.0.1", "1"), command("REPLICAOF", "NO", "ONE")),
    "without replicas": Outage(
        command("CONFIG", "SET", "min-replicas-to-write", "1"), command("CONFIG", "SET", "min-replicas-to-write", "0")
    ),
    "disk full": Outage(fill_disk, free_disk),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Crew, Member]]:
    """One server with an append-only file and one worker, which must survive every outage of this file."""
    folder = tmp_path_factory.mktemp("outage")
    with EmbeddedServer(folder / "server") as server, Crew(folder, server, "outage") as crew:
        yield crew, crew.worker("worker", "prefork", 4)


@pytest.mark.parametrize("kind", OUTAGES)
def test_running_work_survives_an_outage(stage: tuple[Crew, Member], kind: str) -> None:
    """A model call and two tools finish while the server is down for longer than their leases.

    They are committed later and not repeated. A producer is refused during the outage. The worker is still the same process
    and goes on.
    """
    crew, worker = stage
    before = (worker.pid, children(worker))
    words = [f"{kind.replace(' ', '-')}-{what}" for what in ("model", "again", "once")]
    jobs = [
        crew.enqueue(calls(("note", f"{kind}-a"), at0=("hold", words[0]))),
        crew.enqueue(calls(("hold", words[1]), ("note", f"{kind}-b"))),
        crew.enqueue(calls(("hold_once", words[2]), ("note", f"{kind}-c"))),
    ]
    wait_for(lambda: crew.journal.of(words[0], "model"), "the model call to begin")
    crew.began(words[1])
    crew.began(words[2])
    outage = OUTAGES[kind]
    outage.begin(crew.server, crew)
    back_s = time.monotonic() + outage.lasts_s
    try:
        crew.journal.open_gate(*words)
        with pytest.raises(StoreUnavailable):
            crew.enqueue(calls(("note", "refused")))
        wait_for(
            lambda: all(crew.journal.of(word, event) for word, event in count_finished(words)), "the work to be done"
        )
        time.sleep(max(0.0, back_s - time.monotonic()))
    finally:
        outage.end(crew.server, crew)
    assert [job.result(PATIENCE_S).output for job in jobs] == ["done after 1 turns", *["done after 2 turns"] * 2]
    if kind != "frozen":  # a frozen server first answers a sweep that was sent before it froze
        assert [len(crew.journal.of(word, event)) for word, event in count_finished(words)] == [1, 1, 1]
    assert [message.content for message in crew.results(jobs[1])] == [f"held {words[1]}", f"noted {kind}-b"]
    assert len(crew.results(jobs[2])) == 2
    assert (worker.pid, children(worker)) == before
    assert worker.alive


def count_finished(words: list[str]) -> list[tuple[str, str]]:
    """Return the events that say that the three have finished."""
    return list(zip(words, ("replied", "ended", "ended"), strict=True))


def test_a_start_message_taken_before_the_server_was_full_becomes_a_job(stage: tuple[Crew, Member]) -> None:
    """The message of a producer in another language has left the queue. No other worker has it, so this worker keeps trying."""
    crew, worker = stage
    store = crew.client.store.client
    envelope = {**GOOD_START, "job_id": "job-afar", "session_id": "session-afar", "input": calls(("note", "from-afar"))}
    worker.freeze()  # the worker must take the message before the server is full, and handle it later
    store.lpush(crew.client.operations.keys.queue("model"), start(**envelope))
    store.config_set("maxmemory", "1mb")
    try:
        worker.thaw()
        wait_for(lambda: worker.has_logged("start.store_unavailable"), "the enqueue to be refused")
    finally:
        store.config_set("maxmemory", "0")
    wait_for(lambda: crew.journal.of("from-afar"), "the job to be done")
    assert (
        JobHandle(crew.client.operations, "job-afar", "session-afar").result(PATIENCE_S).output == "done after 1 turns"
    )


def test_a_forgotten_script_is_loaded_again_without_a_retry(stage: tuple[Crew, Member]) -> None:
    """During constant SCRIPT FLUSH every job completes, and no step is retried."""
    crew, worker = stage
    over = threading.Event()

    def flush() -> None:
        while not over.wait(0.01):
            crew.client.store.client.script_flush()

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        jobs = [crew.enqueue(calls(*[("note", f"flushed{n}-{turn}") for turn in range(5)])) for n in range(10)]
        assert {job.result(PATIENCE_S).output for job in jobs} == {"done after 5 turns"}
    finally:
        over.set()
        thread.join()
    assert [len(crew.journal.of(f"flushed{n}-{turn}")) for n in range(10) for turn in range(5)] == [1] * 50
    assert not worker.has_logged("step.broke")


def test_after_a_crash_the_servers_older_state_counts(tmp_path: Path) -> None:
    """A crash loses what was not yet in the append-only file.

    Workers that know more continue from the server's state. The test copies the file at the second turn and restores it at the
    fourth. The worker has the longer conversation and the later fences. The turns run again, and the log has each turn once.
    """
    with EmbeddedServer(tmp_path / "server", append_only="always") as server, Crew(tmp_path, server, "back") as crew:
        worker = crew.worker("worker", "threads", 4)
        crew.worker("other", "threads", 4)
        plan = calls(
            ("note", "one"), ("hold", "early"), ("note", "two"), ("note", "three"), ("hold", "late"), ("note", "four")
        )
        job = crew.enqueue(plan)
        crew.began("early")
        kept = tmp_path / "kept"
        shutil.copytree(tmp_path / "server" / "appendonlydir", kept)
        crew.journal.open_gate("early")
        crew.began("late")
        server.kill()
        shutil.rmtree(tmp_path / "server" / "appendonlydir")
        shutil.copytree(kept, tmp_path / "server" / "appendonlydir")
        crew.journal.open_gate("late")
        server.restart()
        assert job.result(PATIENCE_S).output == "done after 6 turns"
        said = [message.content for message in crew.results(job)]
        assert said == ["noted one", "held early", "noted two", "noted three", "held late", "noted four"]
        assert len(crew.journal.of("one")) == 1, "what the server kept is not done again"
        assert len({line.key for line in crew.journal.of("early")}) == 1
        assert len(crew.journal.of("two")) == 2, "what the server lost is done again"
        assert worker.alive


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("regrown", [0, 1, 2, 3, 4])
def test_a_claim_returns_the_servers_log(server: EmbeddedServer, prefix: str, lost: int, regrown: int) -> None:
    """A worker's copy of the log may be shorter, longer, or different with the same length. A claim returns the server's log."""
    client = make_client(Settings(redis_url=server.url, prefix=prefix))
    store, job = client.store, new_job("fault", "hello")
    store.enqueue(job)
    for turn in (1, 2, 3):
        answer(client, job.ref.model_turn(turn), f"said {turn}")
    log = client.operations.keys.log(job.session_id)
    assert [len(claim_step(client, job.ref.model_turn(4)).log), store.client.llen(log)] == [4, 4]
    for _ in range(lost):
        store.client.rpop(log)
    for n in range(regrown):
        store.client.rpush(log, encode(NoteMessage(group=2, text=f"after the crash {n}")))
    # A crash takes the last writes of all keys. A log that lost entries alone is noticed: see test_lost_keys.py.
    store.client.hset(client.operations.keys.session(job.session_id), "entries", store.client.llen(log))
    store.client.hset(client.operations.keys.steps(job.session_id, job.job_id), "4", "pending|0|0|0|0||")
    claim = claim_step(client, job.ref.model_turn(4))
    truth = [decode(entry)[0] for entry in store.client.lrange(log, 0, -1) if isinstance(entry, bytes)]
    assert list(claim.log) == truth
    assert claim.log_weight == weigh_all(truth)


def claim_step(client: Client, ref: StepRef) -> Claim:
    """Claim a step successfully."""
    claim = client.store.claim(ref, f"nonce-{time.monotonic_ns()}")
    assert isinstance(claim, Claim), claim
    return claim


def answer(client: Client, ref: StepRef, text: str) -> None:
    """Commit a turn without calls, which is followed by another turn."""
    claim = claim_step(client, ref)
    said = AssistantMessage(group=claim.group, parts=(Text(text=text),), provider="faults", model="planned")
    trace = TraceRecord(
        step=ref.step, kind=StepKind.MODEL, attempt=0, outcome=Continue().kind, started_ms=0, ended_ms=0, worker="test"
    )
    commit = TurnCommit(messages=(said,), calls=(), usage=Usage(), trace=trace)
    assert client.store.commit_turn(claim, commit) is TurnCommitted.COMMITTED
