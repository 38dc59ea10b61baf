"""One store on two servers. Every operation runs on both. Answers are compared, and so is every key.

One server is the Redis in this process that `run_inline` uses. The other is a real one. So a test without a server sees the same
step machine as a fleet. No code waits here: leases and deferrals last an hour, and time passes when the test rewrites a stored
time to one in the past, on both servers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import redis as redis_py

from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.records import member
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.store.step_keys import step_keys
from midwatch.orchestration.testing.in_process_redis import connect
from midwatch.schemas.job import Job, NewJob
from midwatch.schemas.step import Priority, StepRef
from tests.properties.contents import HOUR_MS, Contents, Fences, State

TIMES = ("created_ms", "started_ms", "deadline_ms", "ends_by_ms", "finished_ms", "held_since_ms", "holder")


class Stopped:
    """A clock that never moves. Its time has as many digits as a server's."""

    def monotonic_ms(self) -> int:
        return 1_800_000_000_000

    def sleep_ms(self, ms: int) -> None:
        raise AssertionError("nothing here may wait")


class Recorder:
    """A dispatcher without a broker. It keeps the published steps."""

    def __init__(self) -> None:
        self.refs: list[StepRef] = []

    def publish(self, refs: Sequence[StepRef], *, begun: bool = False) -> None:
        self.refs += refs

    def hand_off(self, priority: Priority) -> tuple[str, str] | None:
        return None

    def first_queue(self, priority: Priority) -> str | None:
        return None

    def message(self, ref: StepRef, *, begun: bool = False) -> bytes:
        raise AssertionError("a message is made for hand-off only")


LOCAL = connect(Stopped())
"""The server in this process. It is emptied for each comparison, because a new one would compile every script again."""


class Claims(NamedTuple):
    """The claims of one step on both servers. `TwoServers.both` passes each claim to its own server."""

    local: Claim
    real: Claim


class Side:
    """One server with the stores of two workers. Each store has its own copies of the logs."""

    def __init__(self, client: redis_py.Redis, prefix: str) -> None:
        self.client, self.keys, self.sent = client, Keyspace(prefix), Recorder()
        self.workers = [RedisStore(client, self.keys, self.sent, lease_ms=HOUR_MS) for _ in range(2)]
        self.operations = Operations(client, self.keys, self.sent)
        self.fences = Fences()

    def do(self, verb: str, args: Sequence[Any], options: dict[str, Any], worker: int) -> Any:
        """Run an operation. Returns its answer, or the type of the exception that it raised."""
        store = self.workers[worker]
        call: Callable[..., Any] = getattr(store if hasattr(store, verb) else self.operations, verb)
        try:
            answer = call(*args, **options)
        except Exception as error:
            return type(error)
        if isinstance(answer, Claim):
            self.fences.give(answer.ref.job_id, answer.fence)
        return answer

    def plain(self, answer: Any) -> Any:
        """Convert an answer so that equal answers compare equal: claims and jobs without times."""
        if isinstance(answer, Claim):
            names = ("ref", "nonce", "attempt", "losses", "interrupted", "ending", "call", "group", "decision", "log")
            fence = self.fences.rank(answer.ref.job_id, answer.fence)
            plain = {name: getattr(answer, name) for name in (*names, "flags", "anchor", "memory")}
            known = [(loss.worker, loss.kind) for loss in answer.counted_losses]
            return plain | {"fence": fence, "job": _plain_job(answer.job), "known_losses": known}
        if isinstance(answer, tuple) and answer and isinstance(answer[0], list):  # a sweep
            return sorted(map(str, answer[0])), answer[1] > 0, answer[1] < 0
        return answer


class TwoServers:
    """The store on the Redis of this process and on a real server. Answers and contents must be equal."""

    def __init__(self, client: redis_py.Redis, prefix: str) -> None:
        LOCAL.flushall()
        self.local, self.real = Side(LOCAL, prefix), Side(client, prefix)
        self.sides = (self.local, self.real)
        self.state = State.of(Contents.read(self.local.client, prefix, self.local.fences))

    def both(self, verb: str, *args: Any, worker: int = 0, **options: Any) -> Any:
        """Run an operation on both servers. Returns the answer, or a pair of claims.

        Both servers must give the same answer, publish the same steps and then have the same contents.
        """
        answers = []
        for place, side in enumerate(self.sides):
            own = [arg[place] if isinstance(arg, Claims) else arg for arg in args]
            answers.append(side.do(verb, own, options, worker))
        local, real = (side.plain(answer) for side, answer in zip(self.sides, answers, strict=True))
        assert local == real, f"{verb}: in process the answer is {answers[0]}, on the server {answers[1]}"
        published = [sorted(map(str, side.sent.refs)) for side in self.sides]
        assert published[0] == published[1], (
            f"{verb}: published in process {published[0]}, on the server {published[1]}"
        )
        for side in self.sides:
            side.sent.refs.clear()
        self.compare(verb)
        return Claims(*answers) if isinstance(answers[0], Claim) else answers[0]

    def take(self, ref: StepRef, nonce: str, worker: int = 0) -> Claims | ClaimRefusal:
        """Claim a step on both servers."""
        answer: Claims | ClaimRefusal = self.both("claim", ref, nonce, worker=worker)
        return answer

    def compare(self, after: str) -> None:
        """Assert that both servers have the same keys, contents and times to live. Then read `state`."""
        local, real = (Contents.read(side.client, side.keys.prefix, side.fences) for side in self.sides)
        for name in sorted({*local.keys, *real.keys}):
            one, other = local.keys.get(name), real.keys.get(name)
            assert one == other, f"after {after}, {name}: in process {one}, on the server {other}"
        self.state = State.of(local)

    # --- time passes, another release writes

    def expire(self, ref: StepRef) -> None:
        """End the lease of a started step, or let a deferred or waiting step become due."""
        for side in self.sides:
            expire_step(side.client, side.keys, ref)
        self.compare("expire")

    def outlive(self, job_id: str, limit: str = "deadline_ms") -> None:
        """The job has worked too long (`deadline_ms`), was held for too long (`held_ms`), or took too long (`ends_by_ms`)."""
        for side in self.sides:
            passed = 10**12 if limit == "held_ms" else 1
            side.client.hset(side.keys.job(self._home(job_id), job_id), limit, passed)
        self.compare("outlive")

    def add_fields(self, job_id: str) -> None:
        """Write a field that this release does not know into the records of a job and its session, as a later one may."""
        for side in self.sides:
            for key in (side.keys.job(self._home(job_id), job_id), side.keys.session(self._home(job_id))):
                if side.client.exists(key):  # a session has no record before its first job begins
                    side.client.hset(key, "of_a_later_release", "yes")
        self.compare("add_fields")

    def _home(self, job_id: str) -> str:
        return self.state.jobs[job_id].record.session_id


def expire_step(client: Any, keys: Keyspace, ref: StepRef) -> None:
    """Set the end of a step's lease, or its due time, to a time in the past."""
    of_step = step_keys(keys, ref)
    fields = client.hget(of_step.steps, ref.step).split(b"|")
    fields[2] = b"1"
    pipe = client.pipeline(transaction=False)
    pipe.hset(of_step.steps, ref.step, b"|".join(fields))
    pipe.zadd(of_step.due, {member(ref): 1}, xx=True)
    pipe.execute()


def new_job(job_id: str, session_id: str, **fields: Any) -> NewJob:
    """Make a job as the client does."""
    fixed = {"agent": "clerk", "agent_version": "v1", "input": f'the "input" of {job_id}', "timeout_ms": HOUR_MS}
    return NewJob(job_id=job_id, session_id=session_id, **(fixed | {"max_steps": 50} | fields))


def _plain_job(job: Job) -> Any:
    plain = job.model_dump(exclude={*TIMES, "held_ms", "max_worked_ms", "max_held_ms"})
    plain["waiting"] = {**plain["waiting"], "until_ms": None, "since_ms": None} if plain["waiting"] else None
    return plain | {name: getattr(job, name) is None for name in TIMES}
