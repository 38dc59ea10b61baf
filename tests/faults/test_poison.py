"""Poison: no message ends a worker or a pool's child. Each is kept with its reason, and the next good job completes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from midwatch import JobHandle
from midwatch.schemas.step import StepRef
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.process import Member
from tests.faults.crew import Crew, children, ready
from tests.faults.plan import calls
from tests.faults.poison_letters import GOOD_START, LETTERS, Letter, start
from tests.patience import PATIENCE_S, wait_for

POOLS = ("threads", "prefork")


@pytest.fixture(scope="module")
def crews(
    server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, lend_prefix: Any
) -> Iterator[dict[str, tuple[Crew, Member]]]:
    """One fleet for each pool, each with one worker that is not restarted."""
    with lend_prefix() as first, lend_prefix() as second:
        made = {
            pool: Crew(tmp_path_factory.mktemp(pool), server, prefix)
            for pool, prefix in zip(POOLS, (first, second), strict=True)
        }
        workers = {pool: crew.start(pool, pool, 2) for pool, crew in made.items()}
        try:
            ready(*workers.values())
            yield {pool: (made[pool], workers[pool]) for pool in POOLS}
        finally:
            for crew in made.values():
                crew.__exit__()


@pytest.fixture(params=POOLS)
def crew(request: pytest.FixtureRequest, crews: dict[str, tuple[Crew, Member]]) -> Iterator[Crew]:
    """A fleet whose worker and children must be the same processes after the test, and complete a good job."""
    made, worker = crews[request.param]
    before = (worker.pid, children(worker))
    yield made
    job = made.enqueue(calls(("note", "good")))
    assert job.result(PATIENCE_S).output == "done after 1 turns"
    assert worker.alive, worker.log_tail
    assert (worker.pid, children(worker)) == before


def send(crew: Crew, raw: bytes, queue: str = "model") -> None:
    """Push the message to a list from which workers take messages."""
    crew.client.store.client.lpush(crew.client.operations.keys.queue(queue), raw)


@pytest.mark.parametrize("letter", LETTERS, ids=lambda letter: letter.name)
def test_a_poisonous_message_is_kept_with_its_reason(crew: Crew, letter: Letter) -> None:
    """The message's record has the reason and its first bytes, and the worker goes on."""
    known = {record.poison_id for record in crew.client.operations.poison()}
    send(crew, letter.raw)
    if letter.reason is None:
        wait_for(lambda: not crew.queued("model"), "the message to be taken")
        return
    records = wait_for(lambda: [r for r in crew.client.operations.poison() if r.poison_id not in known], "a record")
    assert [letter.reason in record.reason for record in records] == [True], records[0].reason
    assert records[0].queue == crew.client.operations.keys.queue("model")
    assert records[0].body or not letter.raw
    assert len(records[0].body) <= 4_000


def test_a_forged_step_of_a_real_job_changes_nothing(crew: Crew) -> None:
    """Steps that are over, or that do not exist yet, find nothing to do, and are no poison. Those of another session are."""
    job = crew.enqueue(calls(("note", "real"), ("hold", "real-gate")))
    crew.began("real-gate")
    before = {record.poison_id for record in crew.client.operations.poison(1_000)}
    forged = [
        StepRef(job_id=job.id, session_id=session, step=step)
        for session in (job.session_id, "session-of-another")
        for step in ("1", "1.0", "2", "2.0", "2.7", "3", "999999")
    ]
    crew.client.operations.publish(forged)
    wait_for(lambda: not crew.queued("model") and not crew.queued("tools"), "the forged messages to be taken")
    crew.journal.open_gate("real-gate")
    assert job.result(PATIENCE_S).output == "done after 2 turns"
    assert [message.content for message in crew.results(job)] == ["noted real", "held real-gate"]
    found = [record for record in crew.client.operations.poison(1_000) if record.poison_id not in before]
    assert len(found) == len(forged) // 2
    assert all("session-of-another" in record.body for record in found)


def test_a_valid_start_is_a_job(crew: Crew) -> None:
    """The same envelope without a fault, sent three times, makes one job."""
    plan = calls(("note", "started"))
    for _ in range(3):
        send(crew, start(**{**GOOD_START, "input": plan}))
    job = wait_for(lambda: [job for job in crew.client.jobs.list(limit=100) if job.job_id == "job-started"], "the job")
    assert (
        JobHandle(crew.client.operations, job[0].job_id, job[0].session_id).result(PATIENCE_S).output
        == "done after 1 turns"
    )
    assert len(crew.journal.of("started")) == 1


def test_a_flood_of_garbage_uses_little_memory_and_blocks_no_job(
    crew: Crew, crews: dict[str, tuple[Crew, Member]]
) -> None:
    """At most 1,000 records of at most 4,000 bytes are kept. A good job behind 1,200 such messages still completes."""
    worker = next(worker for made, worker in crews.values() if made is crew)
    before_bytes = psutil.Process(worker.pid).memory_info().rss
    pipe = crew.client.store.client.pipeline(transaction=False)
    for _ in range(1_200):
        pipe.lpush(crew.client.operations.keys.queue("model"), b"x" * 20_000)
    pipe.execute()
    assert crew.enqueue(calls(("note", "behind"))).result(PATIENCE_S).output == "done after 1 turns"
    wait_for(lambda: not crew.queued("model"), "the flood to be over")
    assert crew.client.store.client.llen(crew.client.operations.keys.poison()) == 1_000
    assert max(len(record.body) for record in crew.client.operations.poison(1_000)) == 4_000
    assert psutil.Process(worker.pid).memory_info().rss - before_bytes < 50_000_000
