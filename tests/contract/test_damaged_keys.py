"""Damaged keys and forbidden commands: no step is lost, no listing fails, and every job can be ended."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis as redis_py

from midwatch.errors import UnreadableRecord
from midwatch.orchestration.context.restore import restore
from midwatch.orchestration.keyspace import partition
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import UserMessage
from midwatch.schemas.step import Continue, DeadLetter, Defer, StepRef
from tests.contract.test_growing_records import SECRET, Fleet, make_wrong_type
from tests.properties.two_servers import expire_step

COMMANDS = (
    "hmget", "hget", "hset", "hdel", "hgetall", "rpush", "zadd", "zrem", "expire", "lrange", "time", "evalsha", "script|load",
)  # fmt: skip
"""Every command that the claim of a new job needs."""


@pytest.fixture
def fleet(redis: redis_py.Redis, prefix: str) -> Fleet:
    return Fleet(redis, prefix)


def begin(fleet: Fleet) -> StepRef:
    """Begin a job with another job waiting for its session."""
    ref = fleet.enqueue("job-1")
    fleet.run(ref, FailureKind.OVERLOADED)
    fleet.enqueue("job-2")
    expire_step(fleet.client, fleet.names, ref)
    return ref


def damage_row(text: str) -> Any:
    return lambda fleet, ref: fleet.client.hset(fleet.keys(ref).steps, ref.step, text)


DAMAGES = {
    "job": make_wrong_type("job"),
    "steps": make_wrong_type("steps"),
    "log": make_wrong_type("log"),
    "nonsense row": damage_row(SECRET),
    "row of a later state": damage_row("hibernating|1|1|1|0|n|"),
    "nonsense decision": damage_row("pending|0|0|0|0||rejected:|{" + SECRET),
}


def clean(fleet: Fleet, ref: StepRef) -> None:
    fleet.client.delete(*fleet.keys(ref)[:5])  # the leak check knows these keys with their normal types


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_letter_of_a_damaged_job_is_discarded(fleet: Fleet, damage: str) -> None:
    """The letter is removed, and the session goes to the next job."""
    ref = begin(fleet)
    DAMAGES[damage](fleet, ref)
    assert isinstance(fleet.exhaust(ref)[-1], DeadLetter)
    assert [letter.job_id for letter in fleet.operations.dead_letters()] == ["job-1"]
    assert fleet.operations.discard("job-1")
    assert fleet.operations.dead_letters() == []
    assert fleet.client.hget(fleet.keys(ref).session, "active") == b"job-2"
    clean(fleet, ref)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_job_is_cancelled_before_it_is_a_letter(fleet: Fleet, damage: str) -> None:
    """The session goes to the next job, at the latest with the cancelled job's next claim."""
    ref = begin(fleet)
    DAMAGES[damage](fleet, ref)
    assert fleet.operations.cancel("job-1")
    fleet.run(ref)
    assert fleet.client.hget(fleet.keys(ref).session, "active") == b"job-2"
    assert fleet.operations.dead_letters() == []
    clean(fleet, ref)


def test_a_damaged_session_does_not_block_the_next_job(fleet: Fleet) -> None:
    """After the discard the next job's step is owed. Its claim finds the damage, too."""
    ref = begin(fleet)
    make_wrong_type("session")(fleet, ref)
    fleet.exhaust(ref)
    assert fleet.operations.discard("job-1")
    assert fleet.waiting(ref) == 1
    assert isinstance(fleet.run(ref.model_copy(update={"job_id": "job-2"})), Defer)
    clean(fleet, ref)
    fleet.client.zrem(fleet.keys(ref).due, "normal|s1|job-2|1")


def test_damaged_keys_hide_no_other_record(fleet: Fleet) -> None:
    """A job's pointer, log, trace or memory is damaged, or one partition's letters. It is reported, the rest is listed."""
    fleet.run(fleet.enqueue("job-good", "s2"), "Hello.")
    ref = begin(fleet)
    for key in (fleet.keys(ref).log, fleet.keys(ref).trace, fleet.names.memory("s1"), fleet.keys(ref).letters):
        fleet.client.delete(key)
        fleet.client.hset(key, "x", SECRET) if key == fleet.names.memory("s1") else fleet.client.set(
            key, SECRET, ex=3_600
        )
    operations = fleet.operations
    for found in (
        operations.messages("s1"),
        operations.trace("job-1"),
        operations.dead_letters(),
        operations.originals("s1"),
    ):
        assert [one for one in found.unreadable if "WRONGTYPE" in one.why]
    try:
        for read in (operations.memory, operations.numbers):
            with pytest.raises(UnreadableRecord, match="WRONGTYPE"):
                read("s1")
        check_jobs(fleet)
    finally:
        fleet.client.delete(fleet.names.memory("s1"), fleet.keys(ref).letters, fleet.names.job_pointer("job-1"))
        clean(fleet, ref)


def check_jobs(fleet: Fleet) -> None:
    """A job with a damaged pointer is reported in the listing, which shows the other jobs."""
    operations = fleet.operations
    pointer = fleet.names.job_pointer("job-1")
    fleet.client.delete(pointer)
    fleet.client.rpush(pointer, SECRET)
    jobs = operations.jobs()
    assert {job.job_id for job in jobs} == {"job-good", "job-2"}
    assert [one.what for one in jobs.unreadable] == ["the session id of job job-1"]
    with pytest.raises(UnreadableRecord, match="WRONGTYPE"):
        operations.cancel("job-1")
    assert SECRET not in json.dumps([str(one) for one in jobs.unreadable])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_forbidden_command_loses_no_step(redis: redis_py.Redis, prefix: str, server: Any, command: str) -> None:
    """The worker's user may not run the command. Another worker completes the job, and the conversation has the input once."""
    name = f"half-{prefix}"
    redis.execute_command("ACL", "SETUSER", name, "reset", "on", ">pw", "~*", "+@all", f"-{command}")
    host, port = server.url.removeprefix("redis://").split("/")[0].split(":")
    half = redis_py.Redis(host=host, port=int(port), username=name, password="pw")
    try:
        fleet = Fleet(redis, prefix, worker=half)
        ref = fleet.enqueue("job-1")
        if command == "script|load":
            redis.script_flush()
        assert isinstance(fleet.run(ref), Defer | Continue)
        assert fleet.waiting(ref) >= 1
        if redis.hexists(fleet.keys(ref).steps, ref.step):
            expire_step(redis, fleet.names, ref)
        whole = Fleet(redis, prefix)
        whole.run(ref, "Hello.")
        assert whole.operations.job("job-1").status is JobStatus.COMPLETED
        assert [message.role for message in whole.operations.messages("s1")] == ["user", "assistant"]
        if command == "expire":  # the keys that this worker wrote have no time to live
            redis.delete(*fleet.keys(ref)[:5], fleet.names.index(partition("s1"), "unreadable"))
    finally:
        half.close()
        redis.execute_command("ACL", "DELUSER", name)


def test_a_users_copy_of_a_cut_note_restores_no_result() -> None:
    """A user's text may begin like the note about a cut. The text stays, even if it names a stored result."""
    whole = "x" * 90
    left_out = "[50 of 90 characters are left out here. The whole is kept"
    note = f'{left_out}: read on with read_result(handle="r-1", offset=28, length=9)]\n'
    for text in (f"{note}What is this?", note, f"xx\n{note}What is this?"):
        message = UserMessage(group=1, text=text)
        assert restore(message, {"r-1": whole}) is message
