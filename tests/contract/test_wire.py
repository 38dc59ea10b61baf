"""Our wire format compared with the installed kombu and Celery: the same message in the same list.

Workers take one message for each free slot, in order of priority.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from midwatch.schemas.step import Priority, StepRef
from midwatch.workers.celery_app.write_message import CeleryMessageWriter, queue_key
from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.faults.crew import Crew
from tests.faults.plan import calls
from tests.patience import PATIENCE_S, wait_for

PUBLISH = """
import sys
from midwatch.orchestration.store.records import ref_of
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.settings import settings

make_client(settings()).operations.publish([ref_of(member) for member in sys.argv[1:]])
"""
REFS = [
    StepRef(job_id="job-1", session_id="session.1:a@b_c", step=step, priority=priority)
    for step in ("1", "3", "3.1")
    for priority in Priority
]
POOLS = [("threads", 2), ("prefork", 2), ("solo", 1)]


def publish(server: EmbeddedServer, prefix: str, hand_off: bool, refs: list[StepRef]) -> None:
    """Publish from a separate process, as a producer that reads its settings does."""
    members = [f"{ref.priority}|{ref.session_id}|{ref.job_id}|{ref.step}" for ref in refs]
    given = {"MIDWATCH_REDIS_URL": server.url, "MIDWATCH_PREFIX": prefix, "MIDWATCH_HAND_OFF": str(hand_off).lower()}
    subprocess.run(
        [sys.executable, "-c", PUBLISH, *members], env={**os.environ, **given}, check=True, timeout=PATIENCE_S
    )


def queue_of(prefix: str, ref: StepRef) -> str:
    """Return the list that contains a step's message."""
    return queue_key(f"{prefix}.{'tools' if '.' in ref.step else 'model'}", ref.priority, first=ref.step == "1")


def decode(raw: bytes | str) -> dict[str, Any]:
    """Return a message with its body decoded."""
    message: dict[str, Any] = json.loads(raw)
    plain = message["properties"].pop("body_encoding", None) != "base64"
    message["body"] = json.loads(message["body"] if plain else b64decode(message["body"]))
    return message


def test_the_message_equals_celerys_own_message(server: EmbeddedServer, prefix: str, redis: redis_py.Redis) -> None:
    """Our writer and Celery's push to the same lists, with the same body and the same headers, except for the origin."""
    publish(server, prefix, hand_off=False, refs=REFS)
    theirs = {ref: [decode(raw) for raw in redis.lrange(queue_of(prefix, ref), 0, -1)] for ref in REFS}
    for ref in REFS:
        ours, (celerys,) = decode(CeleryMessageWriter(prefix).write(ref)), theirs[ref]
        assert ours.keys() == celerys.keys()
        for name in ("body", "content-type", "content-encoding"):
            assert ours[name] == celerys[name], name
        assert ours["headers"].keys() == celerys["headers"].keys()
        different = {name for name, value in ours["headers"].items() if value != celerys["headers"][name]}
        assert different <= {"origin", "ignore_result"}, (
            "Celery leaves ignore_result to the worker's setting, which is true"
        )
        properties = ours["properties"]
        assert properties.keys() <= celerys["properties"].keys()
        different = {name for name, value in properties.items() if value != celerys["properties"][name]}
        assert different <= {"delivery_tag", "reply_to"}, "the producer awaits no reply"


def test_delivery_tags_differ(prefix: str) -> None:
    """kombu identifies messages by their tag, so no two messages of a process may have the same one."""
    writer = CeleryMessageWriter(prefix)
    tags = {decode(writer.write(ref))["properties"]["delivery_tag"] for ref in REFS * 10}
    assert len(tags) == 10 * len(REFS)


@pytest.fixture(scope="module")
def crew(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, lend_prefix: Any) -> Iterator[Crew]:
    """A fleet without workers. Each test starts the worker that it needs."""
    with lend_prefix() as prefix, Crew(tmp_path_factory.mktemp("wire"), server, prefix) as made:
        yield made


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_worker_takes_no_more_messages_than_it_has_slots(crew: Crew, pool: str, slots: int) -> None:
    """Messages in a worker's memory are lost with it and not available to others, so the rest stays in the queue for any free
    worker. Nothing is acknowledged either: `unacked` is never written, so no visibility timeout runs a step twice.
    """
    words = [f"{pool}{n}" for n in range(slots + 4)]
    worker = crew.worker(pool, pool, slots)
    jobs = [crew.enqueue(calls(("hold", word))) for word in words]
    wait_for(lambda: len(begun(crew, words)) == slots, "every slot to be busy")
    wait_for(lambda: crew.queued("tools") + crew.queued("model") == 4, "the others to wait in the queues")
    settled = time.monotonic() + 0.5
    while time.monotonic() < settled:
        assert crew.queued("tools") + crew.queued("model") >= 3
        assert len(begun(crew, words)) == slots
        assert not crew.client.store.client.exists("unacked", "unacked_index")
        time.sleep(0.05)
    crew.journal.open_gate(*words)
    for job in jobs:
        assert job.result(PATIENCE_S).output == "done after 1 turns"
    assert not crew.client.store.client.exists("unacked", "unacked_index")
    assert worker.terminate()


def begun(crew: Crew, words: list[str]) -> list[str]:
    """Return which of these jobs have begun."""
    return [word for word in words if crew.journal.of(word)]


def test_high_priority_is_served_before_low(crew: Crew) -> None:
    """When a slot becomes free, the newest message of the highest priority goes first. Each priority has its own list."""
    worker = crew.worker("order", "solo", 1)
    gatekeeper = crew.enqueue(calls(("hold", "gate")))
    crew.began("gate")
    jobs = [crew.enqueue(calls(("note", priority)), priority=priority) for priority in ("low", "normal", "high")]
    wait_for(lambda: crew.queued("model") == 3, "all three to wait")
    crew.journal.open_gate("gate")
    for job in (gatekeeper, *jobs):
        job.result(PATIENCE_S)
    noted = [line.word for line in crew.journal.lines() if line.event == "began"]
    assert noted[-3:] == ["high", "normal", "low"]
    assert worker.terminate()


def test_a_message_of_celerys_own_producer_runs(crew: Crew, tmp_path: Path) -> None:
    """A worker takes what `MIDWATCH_HAND_OFF=false` publishes like any other message."""
    job = crew.enqueue(calls(("note", "celery")))
    first = queue_of(crew.prefix, StepRef(job_id=job.id, session_id=job.session_id, step="1"))
    assert crew.client.store.client.delete(first) == 1, "the message of the enqueued job is still in the list"
    publish(crew.server, crew.prefix, hand_off=False, refs=[crew.client.operations.first_step(job.job())])
    worker = crew.worker("taker", "threads", 1, MIDWATCH_HAND_OFF="false")
    assert job.result(PATIENCE_S).output == "done after 1 turns"
    assert worker.terminate()
