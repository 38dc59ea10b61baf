"""Jobs that an earlier release began run under this code to their end. See `record_journal.py`."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

import midwatch
from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.keyspace import KEPT_S, Keyspace
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.steps.tool_step import UNKNOWN_EFFECT
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.schemas.decision import ParkReason
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import AssistantMessage, ToolMessage
from midwatch.schemas.step import StepRef
from midwatch.testing import ScriptedModel, call
from midwatch.workers.bench.context.replay import UnrenewedLeases
from midwatch.workers.process.runtime import SystemClock

from .release_agents import REPLIES, make_agents

HERE = Path(__file__).parent
RELEASES = {"22eb787": "the first release of the fleet", "58ecc77": "the last before the import name `midwatch`"}


class Steps:
    """A dispatcher that keeps the published steps."""

    def __init__(self) -> None:
        self.refs: list[StepRef] = []

    def publish(self, refs: Any, *, begun: bool = False) -> None:
        self.refs += refs

    def first_queue(self, priority: Any) -> None:
        return None

    def hand_off(self, priority: Any) -> None:
        return None

    def message(self, ref: Any, *, begun: bool = False) -> bytes:
        return b""


class Release:
    """A fleet of this code with the data of an earlier release."""

    def __init__(self, client: redis_py.Redis, prefix: str, commit: str) -> None:
        self.client = client
        self.journal = json.loads((HERE / f"{commit}.json").read_text(encoding="utf-8"))
        for name, entry in self.journal["keys"].items():
            load(client, name.replace("journal", prefix), entry)
        self.steps = Steps()
        keys = Keyspace(prefix)
        self.store = RedisStore(client, keys, self.steps, lease_ms=60_000)
        self.operations = Operations(client, keys, self.steps)

    def run(self, name: str) -> str:
        """Run the job of a scenario until it has ended or is parked. Return its id."""
        job: dict[str, Any] = self.journal["jobs"][name]
        job_id = str(job["job_id"])
        self.model = ScriptedModel([as_reply(reply) for reply in REPLIES[name][job["turns_taken"] :]])
        runner = self.runner()
        deadline_s = time.monotonic() + 60
        while (status := self.operations.job(job_id).status) in (JobStatus.QUEUED, JobStatus.RUNNING):
            assert time.monotonic() < deadline_s, f"{job_id} is still {status}"
            due, _ = self.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
            for ref in {ref for ref in (*due, *self.steps.refs) if ref.job_id == job_id}:
                runner.run(ref)
            self.steps.refs.clear()
        return job_id

    def runner(self) -> StepRunner:
        clock = SystemClock()
        return StepRunner(
            Services(
                store=self.store,
                agents=Registry(make_agents(midwatch).values()),
                model=lambda provider: self.model,
                gate=OpenGate(),
                leases=UnrenewedLeases(self.store.renew, clock, 60_000),
                clock=clock,
                worker="this release",
            )
        )

    def results(self, name: str) -> list[str]:
        """Return the results of the scenario's tools."""
        messages = self.operations.messages(f"s-{name}")
        return [message.content for message in messages if isinstance(message, ToolMessage)]


def as_reply(reply: Any) -> Any:
    return reply if isinstance(reply, str) else call(reply[0], **reply[1])


def load(client: redis_py.Redis, key: str, entry: dict[str, Any]) -> None:
    """Write one key of a journal to the server."""
    value = entry["value"]
    match entry["type"]:
        case "string":
            client.set(key, raw(value))
        case "hash":
            client.hset(key, mapping={name: raw(one) for name, one in value.items()})
        case "list":
            client.rpush(key, *map(raw, value))
        case "zset":
            client.zadd(key, {raw(member): score for member, score in value})
    if entry["expires"]:
        client.expire(key, KEPT_S)


def raw(text: str) -> bytes:
    return base64.b64decode(text.removeprefix("base64:")) if text.startswith("base64:") else text.encode()


@pytest.fixture(params=RELEASES, ids=lambda commit: commit)
def release(request: pytest.FixtureRequest, redis: redis_py.Redis, prefix: str) -> Release:
    return Release(redis, prefix, request.param)


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("queued", []),
        ("owed", ["W-1 is at sea"]),
        ("inline", ["5", "W-2 is at sea"]),
        ("refused", [None, "W-3 is at sea"]),
        ("rejected", ["A human rejected this call: over / the limit"]),
        ("lost", ["W-7 is at sea"]),
        ("deferred", []),
    ],
)
def test_a_job_of_an_earlier_release_runs_to_its_end(release: Release, name: str, results: list[str | None]) -> None:
    """The job's steps, leases, backoff and decisions are read as they were written, and no model call is repeated."""
    job = release.operations.job(release.run(name))
    assert (job.status, job.output) == (JobStatus.COMPLETED, REPLIES[name][-1])
    found = release.results(name)
    assert [one if wanted else None for one, wanted in zip(found, results, strict=True)] == results
    release.model.assert_done()
    assert len([one for one in release.operations.messages(f"s-{name}") if isinstance(one, AssistantMessage)]) == len(
        [reply for reply in REPLIES[name] if reply]
    )


def test_a_job_that_waited_in_line_runs_next(release: Release) -> None:
    """The session goes to the next job when the first one has ended."""
    release.run("queued")
    job = release.operations.job(release.run("behind"))
    assert (job.status, job.output) == (JobStatus.COMPLETED, "Hello again.")


def test_a_parked_call_of_an_earlier_release_is_decided(release: Release) -> None:
    """After the approval the call runs, without a second question."""
    release.operations.decide("job-parked", approve=True)
    job = release.operations.job(release.run("parked"))
    assert (job.status, job.output, release.results("parked")) == (
        JobStatus.COMPLETED,
        "Paid back.",
        ["W-4 is paid back"],
    )


def test_an_unknown_effect_of_an_earlier_release_is_decided(release: Release) -> None:
    """The call had begun when its worker vanished. A human rejects it, and the model reads that the outcome is unknown."""
    release.run("effect")
    parked = release.operations.job("job-effect")
    assert (parked.status, parked.waiting and parked.waiting.kind) == (JobStatus.PARKED, ParkReason.UNKNOWN_EFFECT)
    release.operations.decide("job-effect", approve=False, reason="ask the bank")
    release.run("effect")
    assert release.results("effect") == [f"{UNKNOWN_EFFECT} A human decided so. ask the bank"]


def test_a_dead_letter_of_an_earlier_release_is_replayed(release: Release) -> None:
    """The job goes on at its failed step."""
    (letter,) = release.operations.dead_letters()
    assert (letter.job_id, len(letter.tries)) == ("job-dead", 2)
    assert release.operations.replay("job-dead")
    job = release.operations.job(release.run("dead"))
    assert (job.status, job.output) == (JobStatus.COMPLETED, "Back.")


def test_a_parent_of_an_earlier_release_gets_its_childs_result(release: Release) -> None:
    """The child runs here from its first step. Its end wakes the parent."""
    child = next(job for job in release.operations.jobs(limit=100) if job.parent)
    release.journal["jobs"]["child"] = {"job_id": child.job_id, "turns_taken": 0}
    release.run("child")
    job = release.operations.job(release.run("parent"))
    assert (job.status, job.output) == (JobStatus.COMPLETED, "The clerk says: at sea.")


def test_everything_of_an_earlier_release_is_listed(release: Release) -> None:
    """All its jobs, letters and traces are listed, and none hides another."""
    jobs = release.operations.jobs(limit=100)
    assert len(jobs) == len(release.journal["jobs"]) + 1, "and the child"
    for job in jobs:
        assert release.operations.trace(job.job_id) is not None
