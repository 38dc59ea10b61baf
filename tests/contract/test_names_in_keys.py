"""A user's name never acts as key syntax, and a job never gets another job's session.

Every test runs on a real Redis and on the Redis in this process.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py

from midwatch.errors import NotFound, Refused
from midwatch.orchestration.errors import WrongSession
from midwatch.orchestration.keyspace import JOB_PARTS, SESSION_PARTS, Keyspace, partition
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.store.script_calls import operate, put_aside
from midwatch.orchestration.store.step_keys import step_keys
from midwatch.schemas.decision import Verdict
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus, Parent
from midwatch.schemas.lineage import Bounds
from midwatch.schemas.loss import Loss, LossKind
from midwatch.schemas.step import StepRef
from midwatch.testing import ScriptedModel
from midwatch.workers.process import tasks
from tests.contract.store_bench import (
    ASK,
    Bench,
    ending_of,
    in_process_bench,
    not_now,
    redis_bench,
    results_of,
    trace_of,
    turn_of,
)
from tests.contract.test_growing_records import Fleet
from tests.properties.two_servers import new_job


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "in_process":
        return in_process_bench()
    return redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"))


def find_name(of: int, shape: str) -> str:
    """Find a name in a partition, for example of the shape `x{}:log`."""
    return next(name for n in itertools.count() if partition(name := shape.format(n)) == of)


def with_part(part: str) -> tuple[str, str]:
    """Two sessions of one partition: `x` and `x:part`."""
    return next(
        (name, f"{name}:{part}") for n in itertools.count() if partition(name := f"x{n}") == partition(f"{name}:{part}")
    )


def complete(bench: Bench, claim: Claim) -> None:
    assert bench.store.finish(claim, ending_of(claim, JobStatus.COMPLETED), trace_of(claim, "completed"))


@pytest.mark.parametrize("part", SESSION_PARTS)
def test_a_session_named_like_a_part_disturbs_no_other_session(bench: Bench, part: str) -> None:
    """Jobs of `x:log` and of `x` run in turn, with a second one waiting in line. Each conversation has its own messages."""
    plain, named = with_part(part)
    for n, session in enumerate((named, plain, named, plain)):
        claim = bench.begin(f"job-{n}", session)
        assert bench.store.enqueue(new_job(f"job-{n}-behind", session))
        complete(bench, claim)
        complete(bench, bench.claim(new_job(f"job-{n}-behind", session).ref))
    for session in (plain, named):
        assert len(bench.operations.messages(session)) == 8
        assert bench.operations.forget(session)
    assert bench.operations.jobs(limit=20).unreadable == []


@pytest.mark.parametrize("part", JOB_PARTS)
def test_a_job_named_like_a_part_disturbs_no_other_job(bench: Bench, part: str) -> None:
    """The jobs `j` and `j:steps` of one session run one after the other."""
    first = bench.begin(f"j:{part}", "s1")
    assert bench.store.enqueue(new_job("j", "s1"))
    assert bench.operations.cancel("j")
    assert bench.store.enqueue(new_job("j2", "s1"))
    complete(bench, first)
    complete(bench, bench.claim(new_job("j2", "s1").ref))
    assert bench.operations.job(f"j:{part}").status is JobStatus.COMPLETED
    assert len(bench.operations.trace(f"j:{part}")) == 1


def test_a_session_of_an_earlier_release_keeps_its_conversation(bench: Bench) -> None:
    """Earlier releases had `x:results` at the key of the results of `x`. The session moves when it is used again."""
    _, named = with_part("results")
    complete(bench, bench.begin("j:steps", named))
    keys = bench.keys
    for key in (keys.session(named), keys.job(named, "j:steps")):
        bench.client.rename(key, key.removesuffix("~"))
    bench.client.rename(keys.log(named), keys.log(named).replace("~", ""))
    assert bench.operations.job("j:steps").status is JobStatus.COMPLETED
    assert len(bench.operations.messages(named)) == 2
    complete(bench, bench.begin("job-2", named))
    assert [message.group for message in bench.operations.messages(named)] == [1, 2, 3, 4]


def test_a_result_of_another_session_is_not_moved(bench: Bench) -> None:
    """The hash at the key of `x`'s results belongs to `x`. The first use of `x:results` leaves it where it is."""
    plain, named = with_part("results")
    bench.begin("job-1", plain)
    bench.store.put_result(plain, "r-1", b"whole")
    complete(bench, bench.begin("job-2", named))
    assert bench.store.get_result(plain, "r-1") == b"whole"


@pytest.mark.parametrize("text", ["", "a b", "a\0b", "a{b}", "x*", "\ud800", "x" * 200, "a\nb"])
def test_text_that_is_no_id_is_not_found(bench: Bench, text: str) -> None:
    """An operator may paste anything. The answer is that there is no such job or session, and no command is sent."""
    operations = bench.operations
    for read in (operations.job, operations.trace, operations.cancel, operations.replay, operations.discard):
        with pytest.raises(NotFound, match="no job"):
            read(text)
    for read in (operations.messages, operations.memory, operations.numbers, operations.forget, operations.compact):
        with pytest.raises(NotFound, match="no session"):
            read(text)


@pytest.mark.parametrize("step", ["1.0:why", "1.0:call", "*", "\ud800", ""])
def test_a_decision_on_no_step_is_refused(bench: Bench, step: str) -> None:
    """The fields of a step's hash are no steps. Nothing changes."""
    claim, (call, _) = bench.to_calls()
    call_claim = bench.claim(call)
    assert bench.store.park(call_claim, ASK, trace_of(call_claim, "park"))
    if step:
        with pytest.raises(Refused, match="has no step"):
            bench.operations.decide("job-1", step, approve=True)
    assert bench.operations.decide("job-1", approve=True)
    assert claim.ref.job_id == "job-1"


# --- a job together with another job's session


def forge(ref: StepRef, session_id: str) -> StepRef:
    return ref.model_copy(update={"session_id": session_id})


@pytest.fixture
def other() -> str:
    """A session in the partition of `s1`."""
    return find_name(partition("s1"), "other{}")


def dump(bench: Bench) -> dict[bytes, Any]:
    """Read all keys of the fleet, each with its content."""
    client = bench.client
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    return {key: read[client.type(key)](key) for key in client.scan_iter(match=f"{bench.keys.prefix}:*")}  # type: ignore[index]


def test_a_message_with_another_jobs_session_gets_nothing(bench: Bench, other: str) -> None:
    """The claim is refused with its reason, whether the job is queued, running or parked. No key changes."""
    bench.begin("job-b", other)
    queued = new_job("job-1", "s1").ref
    bench.store.enqueue(new_job("job-1", "s1"))
    for _ in range(2):
        before = dump(bench)
        assert bench.take(forge(queued, other)) is ClaimRefusal.WRONG_SESSION
        assert dump(bench) == before
        claim = bench.take(queued)
    assert claim is ClaimRefusal.BUSY


def test_a_message_with_a_session_of_another_partition_is_refused(bench: Bench) -> None:
    """The job is not in that partition, but its pointer says where it is."""
    bench.begin("job-1", "s1")
    far = find_name((partition("s1") + 1) % 16, "far{}")
    assert bench.take(forge(new_job("job-1", "s1").ref, far)) is ClaimRefusal.WRONG_SESSION


def test_a_forged_entry_of_owed_is_removed(bench: Bench, other: str) -> None:
    """A steward publishes it once. Its claim is refused and takes the entry away, so it does not come back for ever."""
    claim = bench.begin("job-1", "s1")
    owed = bench.keys.index(partition("s1"), "owed")
    bench.client.zadd(owed, {f"normal|{other}|job-1|1": 1})
    assert bench.sweep(patience_ms=0) == ["job-1/1"]
    assert bench.take(forge(claim.ref, other)) is ClaimRefusal.WRONG_SESSION
    assert bench.client.zcard(owed) == 0


FORGED: dict[str, Callable[[Bench, Claim], Any]] = {
    "renew": lambda bench, claim: bench.store.renew(claim),
    "set_limits": lambda bench, claim: bench.store.set_limits(
        claim, agent_version="v2", max_steps=1, timeout_ms=1, bounds=Bounds()
    ),
    "commit_turn": lambda bench, claim: bench.store.commit_turn(claim, turn_of(claim)),
    "commit_results": lambda bench, claim: bench.store.commit_results(claim, results_of(claim, claim.ref.call(0))),
    "defer": lambda bench, claim: bench.store.defer(claim, not_now(), trace_of(claim, "defer")),
    "park": lambda bench, claim: bench.store.park(claim, ASK, trace_of(claim, "park")),
    "wait_for_child": lambda bench, claim: bench.wait_for_child(claim),
    "record_loss": lambda bench, claim: bench.store.record_loss(
        claim, Loss(at_ms=1, worker="w", kind=LossKind.DIED_ALONE), 1
    ),
    "finish": lambda bench, claim: complete(bench, claim),
    "set_aside": lambda bench, claim: bench.store.set_aside(
        claim.ref, claim.nonce, Failure(kind=FailureKind.INTERNAL, detail="x"), worker="w", max_tries=1, wait_ms=1
    ),
}


@pytest.mark.parametrize("verb", FORGED)
def test_a_claim_with_another_jobs_session_writes_nothing(bench: Bench, other: str, verb: str) -> None:
    """The worker's fence is right and the session is wrong. Every commit raises an error, and no key changes."""
    bench.begin("job-b", other)
    claim = bench.begin("job-1", "s1")
    forged = Claim(**{**vars(claim), "ref": forge(claim.ref, other)})
    before = dump(bench)
    with pytest.raises(WrongSession, match="belongs to another session; nothing was read or written"):
        FORGED[verb](bench, forged)
    assert dump(bench) == before


def test_an_operation_with_another_jobs_session_writes_nothing(bench: Bench, other: str) -> None:
    """An operation finds the session by the job's pointer. If the pointer is wrong, nothing is changed."""
    bench.begin("job-b", other)
    claim = bench.begin("job-1", "s1")
    ref = forge(claim.ref, other)
    keys, scripts = step_keys(bench.keys, ref), bench.operations._scripts
    calls = [
        operate.adopt(keys, child="job-c", is_added=True),
        operate.cancel(keys, job="job-1", session=other, member_base=f"normal|{other}|job-1|", repair_text="x"),
        operate.discard(keys, job="job-1", session=other, member_base=f"normal|{other}|job-1|", repair_text="x"),
        operate.replay(
            keys, job="job-1", session=other, lane=None, redriven=False, steps_granted=1, time_granted_ms=None,
            wait_granted_ms=None,
        ),
        put_aside.resolve(keys, step="1", member="x", verdict=Verdict.APPROVE, reason=""),
    ]  # fmt: skip
    before = dump(bench)
    for call in calls:
        with pytest.raises(WrongSession):
            scripts.run(call)
    assert dump(bench) == before


def test_a_job_of_an_earlier_release_is_checked_by_its_spec(bench: Bench, other: str) -> None:
    """Earlier releases stored the session in `spec` only. A child's spec names its parent's session, too."""
    parent = Parent(ref=StepRef(job_id="job-b", session_id=other, step="1.0"), root_id="job-b", depth=1)
    bench.store.enqueue(new_job("job-1", "s1", parent=parent))
    ref = new_job("job-1", "s1").ref
    assert bench.client.hdel(bench.keys.job("s1", "job-1"), "session") == 1
    assert bench.take(forge(ref, other)) is ClaimRefusal.WRONG_SESSION
    assert isinstance(bench.take(ref), Claim)


def test_no_model_sees_another_jobs_conversation(redis: redis_py.Redis, prefix: str, other: str) -> None:
    """The reported case: job A runs, a message names it together with B's session. The model is not called."""
    fleet = Fleet(redis, prefix)
    first = fleet.enqueue("job-a", "s1")
    fleet.run(first, FailureKind.OVERLOADED)
    fleet.enqueue("job-b", other)
    for step in ("1", "1.0", "1c", "0c"):
        forged = first.model_copy(update={"session_id": other, "step": step})
        assert fleet.run(forged) is ClaimRefusal.WRONG_SESSION
        assert fleet.model.requests == []
    assert fleet.operations.messages(other) == []
    assert fleet.operations.job("job-a").status is JobStatus.RUNNING


def test_message_with_another_jobs_session_is_poison_with_its_reason(
    redis: redis_py.Redis, prefix: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person finds the message in the poison list, with its reason."""
    fleet = Fleet(redis, prefix)
    ref = fleet.enqueue("job-a", "s1")

    class Runtime:
        runner = fleet.runner
        client = fleet

    monkeypatch.setattr(tasks, "runtime", lambda: Runtime)
    forged = ref.model_copy(update={"session_id": other})
    tasks.model(**forged.model_dump(mode="json"))
    (poison,) = fleet.operations.poison()
    assert poison.reason == "the job belongs to another session than the message says; nothing was read or written"
    assert (poison.queue, json.loads(poison.body)["job_id"]) == (f"{Keyspace(prefix).prefix}.model", "job-a")
    assert isinstance(fleet.model, ScriptedModel)
