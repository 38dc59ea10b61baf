"""Every key of a job may be lost alone: the job ends with a typed failure, or it goes on as if nothing had happened.

A server may lose one key: it evicts it, or a person deletes it. Each test brings a job to a point of its life, takes one key
away (or replaces it, or cuts it), and lets the fleet run. No model is called with an incomplete conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py

from midwatch import Agent, tool
from midwatch.orchestration.errors import NotFound, RecordLost, Refused, UnreadableRecord
from midwatch.orchestration.keyspace import Keyspace, partition
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.store_replies import SetAside
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.orchestration.store.step_keys import step_keys
from midwatch.orchestration.testing.inline_fleet import InlineFleet
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.schemas.step import StepRef
from midwatch.testing import ScriptedModel, call
from tests.contract.store_bench import ending_of, not_now, redis_bench, trace_of
from tests.properties.two_servers import new_job

ROUNDS = 200
"""A job that has not ended after so many steps of the fleet runs for ever."""

SESSION = "s1"


@tool(idempotent=True)
def look_up(n: int) -> str:
    """Look up a number."""
    return f"the number {n}"


@tool(requires_approval=True)
def pay(n: int) -> str:
    """Pay an amount."""
    return f"paid {n}"


AGENT = Agent("clerk", "scripted:m-1", "You help.", tools=[look_up, pay])


class Watched:
    """A model that records its requests."""

    name = "scripted"

    def __init__(self, *replies: Any) -> None:
        self.script = ScriptedModel(replies)
        self.asked: list[list[str]] = []

    def complete(self, request: ModelRequest) -> ModelReply:
        self.asked.append([type(message).__name__ for message in request.messages])
        return self.script.complete(request)

    def count(self, request: ModelRequest) -> int | None:
        return None


class Scene:
    """A fleet with a job under way, and a second job of the same session in line."""

    def __init__(self) -> None:
        self.model = Watched(
            [call("look_up", n=1), call("look_up", n=2)], [call("pay", n=3)], "the first answer", "the second answer"
        )
        self.fleet = InlineFleet(AGENT, model=self.model)
        self.client, self.operations = self.fleet.client, self.fleet.operations
        self.first = self.fleet.enqueue(AGENT, "first question", session_id=SESSION)
        self.second = self.fleet.enqueue(AGENT, "second question", session_id=SESSION)

    def step(self) -> bool:
        """Run one step that is published, or due within an hour. Returns False if there is none."""
        published = self.fleet.published
        if not published:
            for _ in range(2):
                refs, soonest_ms = self.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
                published.extend(dict.fromkeys(refs))
                if published or not 0 <= soonest_ms < 3_600_000:
                    break
                self.fleet.clock.advance(soonest_ms)
        if not published:
            return False
        self.fleet.runner.run(published.popleft())
        return True

    def settle(self) -> None:
        """Let the fleet run until nothing is left to do. Approve what waits for a human, discard what is a dead letter."""
        for _ in range(ROUNDS):
            if self.step():
                continue
            if not self.operations.records.look() and not self.step() and not self.decide():
                return
        raise AssertionError(f"the job still runs after {ROUNDS} steps")

    def decide(self) -> bool:
        """Approve or discard one thing, as a person would. Returns False if there is none."""
        for job in self.operations.jobs(status=JobStatus.PARKED):
            try:
                return self.operations.decide(job.job_id, approve=True)
            except UnreadableRecord:
                return False
        return False

    def keys(self) -> dict[str, str]:
        """All keys of the first job, its session and its partition."""
        ref = StepRef(job_id=self.first, session_id=SESSION, step="1")
        names = self.fleet.store.keys
        found = {name: key for name, key in step_keys(names, ref)._asdict().items() if key}
        found |= {part: getattr(names, part)(SESSION) for part in ("memory", "archive", "results", "originals")}
        found |= {name: names.index(partition(SESSION), name) for name in ("unreadable", "redrive", "begun")}
        return found | {"pointer": names.job_pointer(self.first)}


def queued(scene: Scene) -> None:
    """Nothing has run."""


def at_calls(scene: Scene) -> None:
    """The first turn is committed, and its two calls are owed."""
    scene.step()


def at_half(scene: Scene) -> None:
    """One of the two calls has its result."""
    scene.step()
    scene.step()


def parked(scene: Scene) -> None:
    """A call waits for a human."""
    while scene.step():
        pass


def dead(scene: Scene) -> None:
    """The first job is a dead letter."""
    scene.step()
    scene.model.script = ScriptedModel([FailureKind.AUTH_ERROR, "the second answer"])
    while scene.step():
        pass


POINTS = {point.__name__: point for point in (queued, at_calls, at_half, parked, dead)}

QUICK = ("at_calls", "parked")
"""Points that are tried in each run, with each key deleted."""

KEYS = (
    "job", "steps", "session", "log", "trace", "due", "owed", "counters", "waiting", "jobs", "dead", "letters", "memory",
    "archive", "results", "originals", "unreadable", "redrive", "pointer", "begun",
)  # fmt: skip


def delete(client: Any, key: str) -> None:
    client.delete(key)


def replace(client: Any, key: str) -> None:
    kind = client.type(key)
    client.delete(key)
    client.rpush(key, "x") if kind == b"string" else client.set(key, "x")


def cut(client: Any, key: str) -> None:
    """Take a part away: the newest entry of a list, some fields of a hash, some members of a sorted set."""
    match client.type(key):
        case b"list":
            client.rpop(key)
        case b"hash":
            for field in list(client.hkeys(key))[::2]:
                client.hdel(key, field)
        case b"zset":
            client.zremrangebyrank(key, 0, 0)
        case b"string":
            client.set(key, b"")


DAMAGES: dict[str, Callable[[Any, str], None]] = {one.__name__: one for one in (delete, replace, cut)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that can't be read is a dead letter after two tries instead of thirty."""
    monkeypatch.setitem(StepRunner._set_aside.__kwdefaults__, "max_tries", 2)


def check(scene: Scene, key: str) -> None:
    """Both jobs have ended, or can be ended. The model saw whole conversations only."""
    for asked in scene.model.asked:
        assert asked, "the model was asked with an empty conversation"
        assert asked[0] == "UserMessage", asked
    for job_id in (scene.first, scene.second):
        try:
            job = scene.operations.job(job_id)
        except (NotFound, UnreadableRecord):
            continue  # an error is also an ending here
        assert job.status.ended or job.status is JobStatus.QUEUED, f"{job_id} is {job.status}"
        if job.status is JobStatus.DEAD_LETTERED:
            assert job.failure is not None
            assert job.failure.kind in (FailureKind.RECORD_LOST, FailureKind.INTERNAL, FailureKind.AUTH_ERROR)


def end_all(scene: Scene) -> None:
    """A person ends what is left: discards letters, cancels the others."""
    for _ in range(4):
        for job_id in (scene.first, scene.second):
            try:
                scene.operations.discard(job_id) or scene.operations.cancel(job_id)
            except (NotFound, UnreadableRecord, Refused):
                continue
        scene.settle()


CASES = [
    pytest.param(name, point, damage, marks=() if damage == "delete" and point in QUICK else pytest.mark.slow)
    for name in KEYS
    for point in POINTS
    for damage in DAMAGES
]


@pytest.mark.parametrize(("name", "point", "damage"), CASES)
def test_a_lost_key_leads_to_an_ending_or_is_restored(name: str, point: str, damage: str) -> None:
    """No job runs for ever, no model is called with half a conversation, and a person can end the remaining jobs."""
    scene = Scene()
    POINTS[point](scene)
    key = scene.keys()[name]
    if not scene.client.exists(key):
        return
    DAMAGES[damage](scene.client, key)
    scene.settle()
    check(scene, name)
    end_all(scene)
    check(scene, name)


def test_the_walk_covers_every_key_of_a_job() -> None:
    """A new key of a session, a job or a partition must be tried, too. Counters of drift are statistics."""
    parts = {key.pattern.rpartition(":")[2] for key in Keyspace.CATALOGUE if "{p}" in key.pattern}
    assert parts - {"{sid}", "{job}", "{hour}"} <= set(KEYS)


# --- single cases, with their words


def run_to(scene: Scene, point: str) -> None:
    POINTS[point](scene)


def test_a_job_without_its_steps_is_a_dead_letter() -> None:
    """The reported case: the job ran for ever, and `cancel` returned True without effect. The letter names the lost
    record."""
    scene = Scene()
    run_to(scene, "at_calls")
    scene.client.delete(scene.keys()["steps"])
    scene.settle()
    job = scene.operations.job(scene.first)
    assert (job.status, job.failure and job.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.RECORD_LOST)
    assert job.failure
    assert job.failure.detail.startswith("Redis has lost steps of the job's turn")
    assert scene.operations.dead_letter(scene.first).agent == "clerk"
    with pytest.raises(Refused, match="Redis lost records of it"):
        scene.operations.replay(scene.first)
    assert [message.role for message in scene.operations.messages(SESSION)] == ["user", "assistant"], (
        "what is left is kept"
    )
    assert scene.operations.discard(scene.first)


def test_a_job_without_its_steps_is_cancelled_at_once() -> None:
    """`cancel` has its effect, and the session goes to the next job."""
    scene = Scene()
    run_to(scene, "at_calls")
    scene.client.delete(scene.keys()["steps"])
    assert scene.operations.cancel(scene.first)
    assert scene.operations.job(scene.first).status is JobStatus.CANCELLED
    scene.model.script = ScriptedModel(["the second answer"])
    scene.settle()
    assert scene.operations.job(scene.second).status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    "damage", [lambda client, key: client.delete(key), lambda client, key: client.ltrim(key, 1, -1)]
)
def test_a_job_without_its_log_asks_no_model(damage: Callable[[Any, str], None]) -> None:
    """The reported case: the model was asked with an empty conversation. A log that lacks its beginning is lost, too."""
    scene = Scene()
    run_to(scene, "at_half")
    damage(scene.client, scene.keys()["log"])
    asked = len(scene.model.asked)
    scene.settle()
    job = scene.operations.job(scene.first)
    assert (job.failure and job.failure.kind, len(scene.model.asked)) == (FailureKind.RECORD_LOST, asked)


def test_the_next_job_does_not_go_on_without_its_session(redis: redis_py.Redis, prefix: str) -> None:
    """A session that lost its log does not silently start anew. When its letter is discarded, it goes on with the
    remaining messages."""
    bench = redis_bench(redis, prefix)
    claim = bench.begin()
    assert bench.store.finish(claim, ending_of(claim, JobStatus.COMPLETED), trace_of(claim, "completed"))
    redis.delete(bench.keys.log("s1"))
    job = new_job("job-2", "s1")
    bench.store.enqueue(job)
    with pytest.raises(RecordLost, match="messages of the conversation"):
        bench.take(job.ref)
    assert bench.store.bury(job.ref, RecordLost("log"), worker="w") is SetAside.BURIED
    assert bench.operations.discard("job-2")
    assert isinstance(bench.begin("job-3"), Claim)


def test_a_session_without_its_memory_is_noticed(redis: redis_py.Redis, prefix: str) -> None:
    """Only the memory has what a compaction removed from the log. Without the memory, the model would miss half of the
    session."""
    bench = redis_bench(redis, prefix)
    claim = bench.begin()
    redis.hset(bench.keys.session("s1"), mapping={"has_memory": 1, "epoch": 1})
    bench.expire(claim.ref)
    with pytest.raises(RecordLost, match="the memory of the conversation"):
        bench.take(claim.ref)
    redis.set(bench.keys.memory("s1"), '{"v":1,"through_group":0}', ex=60)
    assert isinstance(bench.take(claim.ref), Claim)


def test_a_compaction_by_an_earlier_release_is_no_loss(redis: redis_py.Redis, prefix: str) -> None:
    """Its workers shorten the log without counting. The epoch shows it, and the entries are counted anew."""
    bench = redis_bench(redis, prefix)
    claim = bench.begin()
    redis.hset(bench.keys.session("s1"), mapping={"entries": 40, "epoch": 7})
    bench.expire(claim.ref)
    assert isinstance(bench.take(claim.ref), Claim)
    assert redis.hmget(bench.keys.session("s1"), "entries", "entries_epoch") == [b"1", b"7"]


def test_a_steward_restores_what_no_message_reaches(redis: redis_py.Redis, prefix: str) -> None:
    """A deferred step without its entry in `due` would wait for ever. The entry is written again, and counted."""
    bench = redis_bench(redis, prefix)
    claim = bench.begin()
    assert bench.store.defer(claim, not_now(), trace_of(claim, "defer"))
    redis.delete(bench.keys.index(partition("s1"), "due"))
    assert bench.operations.records.look() == 1
    assert redis.zcard(bench.keys.index(partition("s1"), "due")) == 1
    assert bench.operations.counters()["records.restored"] == 1
    assert bench.operations.records.look() == 0


def test_a_lost_letter_is_written_again(redis: redis_py.Redis, prefix: str) -> None:
    """Its job is a dead letter and holds its session. It is listed, shown and replayed as before."""
    bench = redis_bench(redis, prefix)
    bench.to_dead_letter()
    for name in ("letters", "dead"):
        redis.delete(bench.keys.index(partition("s1"), name))
    assert bench.operations.records.look() == 2
    (letter,) = bench.operations.dead_letters()
    assert (letter.job_id, letter.step, letter.failure.detail) == ("job-1", "1", "503 from the model")
    assert bench.operations.replay("job-1")


def test_one_damaged_partition_does_not_stop_the_others(redis: redis_py.Redis, prefix: str) -> None:
    """Stewards publish the due steps of all other partitions. The damaged index is deleted, and what is known restored."""
    bench = redis_bench(redis, prefix)
    claim = bench.begin()
    other = next(name for n in range(100) if partition(name := f"other{n}") != partition("s1"))
    bench.store.enqueue(new_job("job-2", other))
    due = bench.keys.index(partition("s1"), "due")
    redis.delete(due)
    redis.set(due, "x", ex=60)
    assert bench.sweep(patience_ms=0) == ["job-2/1"]
    assert bench.operations.records.look() > 0
    bench.expire(claim.ref)
    assert "job-1/1" in bench.sweep(patience_ms=0)


def test_a_damaged_session_is_a_typed_error_for_producers(redis: redis_py.Redis, prefix: str) -> None:
    """`enqueue` raises UnreadableRecord, which names the job. Before, it was an error of the Redis client."""
    bench = redis_bench(redis, prefix)
    for key in (bench.keys.session("s1"), bench.keys.job_pointer("job-2")):
        redis.delete(key)
        redis.set(key, "x", ex=60) if "session" in key else redis.rpush(key, "x")
        with pytest.raises(UnreadableRecord, match=r"job-2.*WRONGTYPE"):
            bench.store.enqueue(new_job("job-2", "s1"))
        redis.delete(key)
    redis.delete(bench.keys.job("s1", "job-2"))
