"""Stored records may grow.

A later field is kept, a later version is left to a later worker, and a damaged record ends as a letter.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import redis as redis_py
from structlog.testing import capture_logs

from midwatch import Agent
from midwatch.errors import NotFound, UnreadableRecord
from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.context.fact_ledger import absorb_facts
from midwatch.orchestration.keyspace import Keyspace, partition
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.store_replies import SetAside
from midwatch.orchestration.steps.runner import UNREADABLE_TRIES, StepRunner
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.store.step_keys import StepKeys, step_keys
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.memory import Facts, Memory
from midwatch.schemas.message import MESSAGE, ToolMessage
from midwatch.schemas.step import DeadLetter, Defer, StepRef
from midwatch.testing import ScriptedModel
from midwatch.workers.bench.context.replay import UnrenewedLeases
from midwatch.workers.process.runtime import SystemClock
from tests.properties.two_servers import Recorder, expire_step, new_job

SECRET = "my password is hunter2"
LATER = {"of_a_later_release": {"deep": [1, "two"]}}
AGENT = Agent("clerk", "scripted:m-1", "You help.")


class Fleet:
    """One worker and an operator."""

    def __init__(self, client: redis_py.Redis, prefix: str, worker: redis_py.Redis | None = None) -> None:
        self.client, self.names, self.sent = client, Keyspace(prefix), Recorder()
        self.store = RedisStore(worker or client, self.names, self.sent, lease_ms=60_000)
        self.operations = Operations(client, self.names, self.sent)
        self.model = ScriptedModel([])
        clock = SystemClock()
        self.runner = StepRunner(
            Services(
                store=self.store,
                agents=Registry([AGENT]),
                model=lambda provider: self.model,
                gate=OpenGate(),
                leases=UnrenewedLeases(self.store.renew, clock, 60_000),
                clock=clock,
                worker="w1",
            )
        )

    def enqueue(self, job_id: str, session_id: str = "s1") -> StepRef:
        job = new_job(job_id, session_id, input=SECRET)
        RedisStore(self.client, self.names, self.sent).enqueue(job)
        return job.ref

    def keys(self, ref: StepRef) -> StepKeys:
        return step_keys(self.names, ref)

    def run(self, ref: StepRef, *replies: Any) -> object:
        self.model = ScriptedModel(replies)
        return self.runner.run(ref)

    def exhaust(self, ref: StepRef) -> list[object]:
        """Run the step until it is no longer offered. Return the outcomes."""
        outcomes = []
        for _ in range(UNREADABLE_TRIES):
            outcomes.append(self.runner.run(ref))
            with suppress(redis_py.ResponseError, IndexError):  # the step's own row is damaged
                expire_step(self.client, self.names, ref)
        return outcomes

    def waiting(self, ref: StepRef) -> int:
        """Count the entries of `due` and `owed` in the step's partition."""
        return int(self.client.zcard(self.keys(ref).due)) + int(self.client.zcard(self.keys(ref).owed))  # type: ignore[arg-type]


@pytest.fixture
def fleet(redis: redis_py.Redis, prefix: str) -> Fleet:
    return Fleet(redis, prefix)


def grow(raw: bytes) -> bytes:
    """Return the JSON with one field that this release does not know."""
    return json.dumps({**json.loads(raw), **LATER}).encode()


# --- a later field


def test_a_job_with_later_fields_runs_to_its_end(fleet: Fleet) -> None:
    """A job's hash, spec and log get one more field each. No claim raises, and the fields are still there at the end."""
    ref = fleet.enqueue("job-1")
    keys = fleet.keys(ref)
    fleet.run(ref, FailureKind.OVERLOADED)
    fleet.client.hset(keys.job, "of_a_later_release", "1")
    for field in ("spec", "waiting"):
        fleet.client.hset(keys.job, field, grow(fleet.client.hget(keys.job, field)))  # type: ignore[arg-type]
    fleet.client.lset(keys.log, 0, grow(fleet.client.lindex(keys.log, 0)))  # type: ignore[arg-type]
    fleet.client.lset(keys.trace, 0, grow(fleet.client.lindex(keys.trace, 0)))  # type: ignore[arg-type]
    expire_step(fleet.client, fleet.names, ref)
    assert fleet.operations.job("job-1").waiting
    fleet.run(ref, "Hello.")
    job = fleet.operations.job("job-1")
    assert (job.status, job.output) == (JobStatus.COMPLETED, "Hello.")
    assert fleet.client.hget(keys.job, "of_a_later_release") == b"1"
    assert fleet.operations.messages("s1")[0].model_extra == LATER
    assert fleet.operations.trace("job-1")[0].model_extra == LATER


def test_a_message_keeps_its_later_fields_when_it_is_written_back() -> None:
    """Eliding and cutting copy a message. The copy keeps fields that they do not know."""
    raw = json.dumps({"role": "tool", "group": 1, "ordinal": 0, "call_id": "c", "tool": "t", "content": "x", **LATER})
    message = MESSAGE.validate_json(raw)
    assert isinstance(message, ToolMessage)
    assert json.loads(message.model_copy(update={"content": "y"}).model_dump_json())["of_a_later_release"]


def test_a_memory_keeps_its_later_fields_when_it_grows() -> None:
    """Unknown fields of the memory and of an entry of its ledger are kept."""
    entry = Facts(group=1, source="user", untrusted=False, items=("W-1704",), **LATER)
    memory = Memory(through_group=1, facts=(entry,), **LATER)
    after = absorb_facts(memory, [], 10_000)
    assert (after.model_extra, [one.model_extra for one in after.facts]) == (LATER, [LATER])


def test_a_letter_with_a_later_field_is_listed_and_replayed(fleet: Fleet) -> None:
    """The unknown fields are in the letter itself, and in its failure and tries."""
    ref = fleet.enqueue("job-1")
    fleet.run(ref, FailureKind.AUTH_ERROR)
    letter = json.loads(fleet.client.hget(fleet.keys(ref).letters, "job-1"))  # type: ignore[arg-type]
    letter |= LATER
    letter["failure"] |= LATER
    letter["tries"][0] |= LATER
    fleet.client.hset(fleet.keys(ref).letters, "job-1", json.dumps(letter))
    (found,) = fleet.operations.dead_letters()
    assert (found.model_extra, found.failure.model_extra) == (LATER, LATER)
    assert fleet.operations.replay("job-1")
    fleet.run(ref, "Hello.")
    assert fleet.operations.job("job-1").status is JobStatus.COMPLETED


# --- a later version, and damage


def make_newer(fleet: Fleet, ref: StepRef) -> None:
    keys = fleet.keys(ref)
    spec = json.loads(fleet.client.hget(keys.job, "spec"))  # type: ignore[arg-type]
    fleet.client.hset(keys.job, "spec", json.dumps({**spec, "v": 2}))


def make_newer_entry(fleet: Fleet, ref: StepRef) -> None:
    fleet.client.rpush(fleet.keys(ref).log, json.dumps({"v": 2, "role": "user", "group": 1, "text": SECRET}))


def make_unknown_role(fleet: Fleet, ref: StepRef) -> None:
    fleet.client.rpush(fleet.keys(ref).log, json.dumps({"role": SECRET, "group": 1, "text": SECRET}))


def make_damaged_entry(fleet: Fleet, ref: StepRef) -> None:
    fleet.client.rpush(fleet.keys(ref).log, SECRET)


def make_unknown_status(fleet: Fleet, ref: StepRef) -> None:
    fleet.client.hset(fleet.keys(ref).job, "status", "hibernating")


def make_damaged_number(fleet: Fleet, ref: StepRef) -> None:
    fleet.client.hset(fleet.keys(ref).job, mapping={"max_steps": SECRET, "deadline_ms": SECRET})


def make_damaged_spec(fleet: Fleet, ref: StepRef) -> None:
    fleet.client.hset(fleet.keys(ref).job, "spec", SECRET)


def make_wrong_type(part: str) -> Any:
    def make(fleet: Fleet, ref: StepRef) -> None:
        key = getattr(fleet.keys(ref), part)
        fleet.client.delete(key)
        fleet.client.set(key, SECRET, ex=3_600)

    return make


DAMAGES = {
    "newer job": make_newer,
    "newer entry": make_newer_entry,
    "unknown role": make_unknown_role,
    "damaged entry": make_damaged_entry,
    "unknown status": make_unknown_status,
    "damaged number": make_damaged_number,
    "damaged spec": make_damaged_spec,
    "wrong type of log": make_wrong_type("log"),
    "wrong type of job": make_wrong_type("job"),
    "wrong type of steps": make_wrong_type("steps"),
    "wrong type of session": make_wrong_type("session"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_unreadable_step_is_offered_to_others_and_then_dead_lettered(fleet: Fleet, damage: str) -> None:
    """No exception leaves the step. The letter gives the reason without any content, and other letters stay visible."""
    good = fleet.enqueue("job-good", "s2")
    fleet.run(good, FailureKind.AUTH_ERROR)
    ref = fleet.enqueue("job-1")
    fleet.run(ref, FailureKind.OVERLOADED)
    expire_step(fleet.client, fleet.names, ref)
    DAMAGES[damage](fleet, ref)
    with capture_logs() as logs:
        outcomes = fleet.exhaust(ref)
    assert [type(one) for one in outcomes] == [Defer] * (UNREADABLE_TRIES - 1) + [DeadLetter]
    letters = fleet.operations.dead_letters()
    assert {letter.job_id for letter in letters} == {"job-1", "job-good"}
    buried = next(letter for letter in letters if letter.job_id == "job-1")
    assert "can't be read" in buried.failure.detail
    assert SECRET not in buried.model_dump_json() + json.dumps(logs, default=str)
    assert buried.dead_ms > 0
    assert fleet.waiting(ref) == 0
    assert "job-good" in {job.job_id for job in fleet.operations.jobs()}
    fleet.client.delete(*fleet.keys(ref)[:5])  # the leak check knows these keys with their normal types


@pytest.mark.parametrize("damage", ["newer job", "unknown status", "damaged entry"])
def test_a_worker_that_can_read_a_step_completes_it(fleet: Fleet, damage: str) -> None:
    """A step that one worker could not read is not a lost step: its attempts and losses stay as they were."""
    ref = fleet.enqueue("job-1")
    fleet.run(ref, FailureKind.OVERLOADED)
    expire_step(fleet.client, fleet.names, ref)
    keys = fleet.keys(ref)
    before = fleet.client.dump(keys.job), fleet.client.dump(keys.log)
    DAMAGES[damage](fleet, ref)
    assert isinstance(fleet.run(ref), Defer)
    expire_step(fleet.client, fleet.names, ref)
    for key, dumped in zip((keys.job, keys.log), before, strict=True):  # the other worker can read these records
        fleet.client.restore(key, fleet.client.pttl(key), dumped, replace=True)  # type: ignore[arg-type]
    claim = fleet.store.claim(ref, "the other worker")
    assert isinstance(claim, Claim)
    assert (claim.attempt, claim.losses, claim.interrupted) == (1, 0, False)
    fleet.model = ScriptedModel(["Hello."])
    fleet.runner.work_on(claim)
    assert fleet.operations.job("job-1").output == "Hello."


def test_a_job_that_never_began_is_replayed_with_its_input(fleet: Fleet) -> None:
    """The job's input is not in the conversation yet. A replay must not call the model with an empty conversation."""
    ref = fleet.enqueue("job-1")
    keys = fleet.keys(ref)
    spec = fleet.client.hget(keys.job, "spec")
    make_newer(fleet, ref)
    assert isinstance(fleet.exhaust(ref)[-1], DeadLetter)
    fleet.client.hset(keys.job, "spec", spec)  # type: ignore[arg-type]
    assert fleet.operations.replay("job-1")
    fleet.run(ref, "Hello.")
    assert fleet.operations.job("job-1").output == "Hello."
    assert [message.role for message in fleet.operations.messages("s1")] == ["user", "assistant"]


@pytest.mark.parametrize("damage", ["newer job", "damaged entry", "damaged number"])
def test_an_unreadable_job_can_be_cancelled(fleet: Fleet, damage: str) -> None:
    """The job ends at its next claim, and its session goes to the next job."""
    ref = fleet.enqueue("job-1")
    fleet.run(ref, FailureKind.OVERLOADED)
    behind = fleet.enqueue("job-2")
    expire_step(fleet.client, fleet.names, ref)
    DAMAGES[damage](fleet, ref)
    fleet.run(ref)
    assert fleet.operations.cancel("job-1")
    fleet.run(ref)
    assert fleet.client.hget(fleet.keys(ref).job, "status") == b"cancelled"
    assert fleet.waiting(ref) == 1, "the first step of the next job"
    assert fleet.client.hget(fleet.keys(behind).session, "active") == b"job-2"


def test_a_worker_without_read_permission_leaves_the_step_to_others(
    redis: redis_py.Redis, prefix: str, server: Any
) -> None:
    """Redis answers NOPERM, because this worker's user may not read logs. Another user's worker completes the job."""
    name = f"half-{prefix}"
    rules = ("on", ">pw", "~*", "+@all", "-lrange")
    redis.execute_command("ACL", "SETUSER", name, "reset", *rules)
    host, port = server.url.removeprefix("redis://").split("/")[0].split(":")
    half = redis_py.Redis(host=host, port=int(port), username=name, password="pw")
    try:
        fleet = Fleet(redis, prefix, worker=half)
        ref = fleet.enqueue("job-1")
        outcome = fleet.run(ref)
        assert isinstance(outcome, Defer), outcome
        assert "no permissions" in outcome.reason
        expire_step(redis, fleet.names, ref)
        whole = Fleet(redis, prefix)
        whole.run(ref, "Hello.")
        assert whole.operations.job("job-1").status is JobStatus.COMPLETED
    finally:
        half.close()
        redis.execute_command("ACL", "DELUSER", name)


def test_a_step_that_is_over_is_not_buried(fleet: Fleet) -> None:
    """Its turn is committed, and the job goes on: a late worker that gives the step up changes nothing."""
    ref = fleet.enqueue("job-1")
    fleet.run(ref, "")  # an empty answer is sent back, and the next turn is owed
    failure = Failure(kind=FailureKind.INTERNAL, detail="its records can't be read")
    result = fleet.store.set_aside(ref, "late", failure, worker="w2", max_tries=1, wait_ms=1)
    assert result is SetAside.GONE
    fleet.run(ref.model_turn(2), "Hello.")
    assert fleet.operations.job("job-1").output == "Hello."


# --- listings


@pytest.fixture
def three_letters(fleet: Fleet) -> Fleet:
    """Make three dead letters. The second one has a later version."""
    for number in (1, 2, 3):
        ref = fleet.enqueue(f"job-{number}", f"s{number}")
        fleet.run(ref, FailureKind.AUTH_ERROR)
        if number == 2:
            keys = fleet.keys(ref)
            letter = json.loads(fleet.client.hget(keys.letters, "job-2"))  # type: ignore[arg-type]
            fleet.client.hset(keys.letters, "job-2", json.dumps({**letter, "v": 7}))
            make_newer(fleet, ref)
            trace = json.loads(fleet.client.lindex(keys.trace, 0))  # type: ignore[arg-type]
            fleet.client.rpush(keys.trace, json.dumps({**trace, "v": 2}))
    return fleet


def test_an_unreadable_record_hides_no_other_record(three_letters: Fleet) -> None:
    """Readable jobs, letters and traces are listed. Each unreadable one is listed with its reason."""
    jobs, letters = three_letters.operations.jobs(), three_letters.operations.dead_letters()
    assert {job.job_id for job in jobs} == {letter.job_id for letter in letters} == {"job-1", "job-3"}
    for found in (jobs, letters):
        (left_out,) = found.unreadable
        assert "job-2" in left_out.what
        assert "newer version" in left_out.why
    trace = three_letters.operations.trace("job-2")
    assert (len(trace), len(trace.unreadable)) == (1, 1)
    with pytest.raises(UnreadableRecord, match="newer version"):
        three_letters.operations.job("job-2")
    with pytest.raises(UnreadableRecord, match="newer version"):
        three_letters.operations.dead_letter("job-2")
    with pytest.raises(NotFound):
        three_letters.operations.job("job-4")


def test_an_unknown_index_entry_does_not_stop_a_steward(fleet: Fleet) -> None:
    """A sweep skips an index entry that a later release wrote, and handles the others."""
    ref = fleet.enqueue("job-1")
    due = fleet.names.index(partition("s1"), "due")
    fleet.client.zadd(due, {"urgent|s1|job-9|1|more": 1, "no step": 1})
    refs, _ = fleet.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
    assert ref in refs
    fleet.client.delete(due)
    fleet.client.zrem(fleet.names.index(partition("s1"), "owed"), "urgent|s1|job-9|1|more", "no step")


def test_an_unknown_failure_kind_is_reported_without_its_text(fleet: Fleet) -> None:
    """A record with a failure kind that this release does not know is unreadable. The reason does not quote its text."""
    with pytest.raises(ValueError, match="kind"):
        Failure.model_validate({"kind": "of_a_later_release", "detail": SECRET})
