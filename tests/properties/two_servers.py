"""One store on two servers: every verb goes to both, answers are compared, and so is every key that the servers hold.

One server is the Redis in this process that `run_inline` uses, the other is a real one. So what a test sees of the step machine
without a server is what the fleet does. Nothing waits here: leases and deferrals last an hour, and time passes by rewriting a
moment into the past on both.
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

TIMES = ("created_ms", "started_ms", "deadline_ms", "finished_ms")


class Stopped:
    """A clock that stands still, at a moment as large as the server's."""

    def monotonic_ms(self) -> int:
        return 1_800_000_000_000

    def sleep_ms(self, ms: int) -> None:
        raise AssertionError("nothing here may wait")


class Recorder:
    """A dispatcher without a broker: it remembers what it was given."""

    def __init__(self) -> None:
        self.refs: list[StepRef] = []

    def publish(self, refs: Sequence[StepRef]) -> None:
        self.refs += refs

    def hand_off(self, priority: Priority) -> tuple[str, str] | None:
        return None

    def message(self, ref: StepRef) -> bytes:
        raise AssertionError("a message is made for hand-off only")


LOCAL = connect(Stopped())
"""The server in this process, emptied for each comparison: a new one would compile every script anew."""


class Claims(NamedTuple):
    """The claims that both servers gave for one step. Given to `TwoServers.both`, each goes to its own server."""

    local: Claim
    real: Claim


class Side:
    """One server, and two workers' stores on it, each with its own copies of the logs."""

    def __init__(self, client: redis_py.Redis, prefix: str) -> None:
        self.client, self.keys, self.sent = client, Keyspace(prefix), Recorder()
        self.workers = [RedisStore(client, self.keys, self.sent, lease_ms=HOUR_MS) for _ in range(2)]
        self.operations = Operations(client, self.keys, self.sent)
        self.fences = Fences()

    def do(self, verb: str, args: Sequence[Any], options: dict[str, Any], worker: int) -> Any:
        """The answer of a verb, or the type of what it raised."""
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
        """The same value for equal answers: claims and jobs without moments."""
        if isinstance(answer, Claim):
            names = ("ref", "nonce", "attempt", "losses", "interrupted", "ending", "call", "group", "decision", "log")
            fence = self.fences.rank(answer.ref.job_id, answer.fence)
            plain = {name: getattr(answer, name) for name in (*names, "flags", "anchor", "memory")}
            return plain | {"fence": fence, "job": _plain_job(answer.job)}
        if isinstance(answer, tuple) and answer and isinstance(answer[0], list):  # a sweep
            return sorted(map(str, answer[0])), answer[1] > 0, answer[1] < 0
        return answer


class TwoServers:
    """The store on the Redis of this process and on a real server, held to the same answers and the same contents."""

    def __init__(self, client: redis_py.Redis, prefix: str) -> None:
        LOCAL.flushall()
        self.local, self.real = Side(LOCAL, prefix), Side(client, prefix)
        self.sides = (self.local, self.real)
        self.state = State.of(Contents.read(self.local.client, prefix, self.local.fences))

    def both(self, verb: str, *args: Any, worker: int = 0, **options: Any) -> Any:
        """Do it on both; the answer, or a pair of claims, once they agree in answer, in steps published and in contents."""
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
        """Claim a step on both."""
        answer: Claims | ClaimRefusal = self.both("claim", ref, nonce, worker=worker)
        return answer

    def compare(self, after: str) -> None:
        """Both servers hold the same keys with the same contents and times to live; `state` is what they hold."""
        local, real = (Contents.read(side.client, side.keys.prefix, side.fences) for side in self.sides)
        for name in sorted({*local.keys, *real.keys}):
            one, other = local.keys.get(name), real.keys.get(name)
            assert one == other, f"after {after}, {name}: in process {one}, on the server {other}"
        self.state = State.of(local)

    # --- time passes, other releases write

    def expire(self, ref: StepRef) -> None:
        """The lease of a started step ends; a deferred or waiting one becomes due."""
        for side in self.sides:
            expire_step(side.client, side.keys, ref)
        self.compare("expire")

    def outlive(self, job_id: str) -> None:
        """The job's deadline passes."""
        for side in self.sides:
            side.client.hset(side.keys.job(self._home(job_id), job_id), "deadline_ms", 1)
        self.compare("outlive")

    def add_fields(self, job_id: str) -> None:
        """A later release writes a field that this one does not know into the records of a job and of its session."""
        for side in self.sides:
            for key in (side.keys.job(self._home(job_id), job_id), side.keys.session(self._home(job_id))):
                if side.client.exists(key):  # the record of a session that no job ever began in is empty
                    side.client.hset(key, "of_a_later_release", "yes")
        self.compare("add_fields")

    def _home(self, job_id: str) -> str:
        return self.state.jobs[job_id].record.session_id


def expire_step(client: Any, keys: Keyspace, ref: StepRef) -> None:
    """Write the end of a step's lease, or its due time, into the past."""
    of_step = step_keys(keys, ref)
    fields = client.hget(of_step.steps, ref.step).split(b"|")
    fields[2] = b"1"
    pipe = client.pipeline(transaction=False)
    pipe.hset(of_step.steps, ref.step, b"|".join(fields))
    pipe.zadd(of_step.due, {member(ref): 1}, xx=True)
    pipe.execute()


def new_job(job_id: str, session_id: str, **fields: Any) -> NewJob:
    """A job as `jobs.new_job` makes it."""
    fixed = {"agent": "clerk", "agent_version": "v1", "input": f'the "input" of {job_id}', "timeout_ms": HOUR_MS}
    return NewJob(job_id=job_id, session_id=session_id, **(fixed | {"max_steps": 50} | fields))


def _plain_job(job: Job) -> Any:
    plain = job.model_dump(exclude=set(TIMES))
    plain["waiting"] = {**plain["waiting"], "until_ms": None} if plain["waiting"] else None
    return plain | {name: getattr(job, name) is None for name in TIMES}
