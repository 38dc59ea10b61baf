"""RedisStore and MemoryStore side by side: every verb goes to both, answers are compared, and so is all that they hold.

Nothing waits here: leases and deferrals last an hour, and time passes by rewriting a moment into the past in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from midwatch.orchestration.keyspace import Keyspace, partition
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.store.decisions import read_decision
from midwatch.orchestration.store.log_cache import LogCache
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.records import job_of, member, ref_of, step_keys
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.testing.local_operations import MemoryOperations
from midwatch.orchestration.testing.local_state import Row
from midwatch.orchestration.testing.local_store import MemoryStore
from midwatch.schemas.job import Job, NewJob
from midwatch.schemas.message import ToolCall
from midwatch.schemas.step import Priority, StepRef

HOUR_MS = 3_600_000
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


class TwoStores:
    """Two workers' RedisStores (each with its own copies of the logs) over one server, and the model of them."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client, self.keys, self.sent = client, Keyspace(prefix), Recorder()
        self.workers = [RedisStore(client, self.keys, self.sent, lease_ms=HOUR_MS) for _ in range(2)]
        self.operations = Operations(client, self.keys, self.sent)
        self.modelled = Recorder()
        self.fences: dict[str, list[int]] = {}
        self.memory = MemoryStore(Stopped(), self.modelled.publish, lease_ms=HOUR_MS)
        self.model = MemoryOperations(self.memory)

    def both(self, verb: str, real: tuple[Any, ...], model: tuple[Any, ...], worker: int = 0, **options: Any) -> Any:
        """Do it to both; the answer, once they agree in answer, in what they publish, and in what they hold."""
        store, memory = self.workers[worker], self.memory
        answers = [
            _answer(getattr(store if hasattr(store, verb) else self.operations, verb), real, options),
            _answer(getattr(memory if hasattr(memory, verb) else self.model, verb), model, options),
        ]
        plain = [_plain(answer) for answer in answers]
        if isinstance(answers[0], Claim):
            plain[0]["fence"] = self.rank(answers[0].ref.job_id, answers[0].fence)
        assert plain[0] == plain[1], f"{verb}: Redis answered {answers[0]}, memory {answers[1]}"
        assert self.sent.refs == self.modelled.refs, (
            f"{verb}: published {self.sent.refs}, expected {self.modelled.refs}"
        )
        self.sent.refs.clear()
        self.modelled.refs.clear()
        self.compare(verb)
        return answers

    def compare(self, verb: str) -> None:
        """What both hold is the same."""
        real, model = self.held_by_redis(), self.held_by_memory()
        for part, held in model.items():
            assert real[part] == held, f"after {verb}, {part}: Redis holds {real[part]}, memory {held}"

    # --- time passes

    def expire(self, ref: StepRef) -> None:
        """The lease of a started step ends; a deferred or waiting one becomes due."""
        expire_in_redis(self.client, self.keys, ref)
        expire_in_memory(self.memory, ref)

    def outlive(self, job_id: str) -> None:
        """The job's deadline passes."""
        job = self.memory.state.jobs[job_id]
        if job.record.deadline_ms is not None:
            job.update(deadline_ms=1)
            self.client.hset(self.keys.job(job.record.session_id, job_id), "deadline_ms", 1)

    # --- what they hold, without moments

    def held_by_memory(self) -> dict[str, Any]:
        state = self.memory.state
        return {
            "jobs": {job_id: _plain(job.record) for job_id, job in state.jobs.items()},
            "cancelled": {job_id for job_id, job in state.jobs.items() if job.cancel},
            "rows": {
                (job_id, step): _row_of(row) for job_id, job in state.jobs.items() for step, row in job.rows.items()
            },
            "traces": {
                job_id: [record.model_dump_json(exclude_none=True) for record in job.trace]
                for job_id, job in state.jobs.items()
            },
            "sessions": {
                session_id: (session.active, list(session.waiting), session.groups, session.conversation())
                for session_id, session in state.sessions.items()
            },
            "due": {ref: _when(at_ms) for ref, at_ms in state.due.items()},
            "owed": set(state.owed),
            "letters": set(state.letters),
            "counters": {name: n for name, n in state.counters.items() if n},
        }

    def held_by_redis(self) -> dict[str, Any]:
        jobs, sessions = self.memory.state.jobs, self.memory.state.sessions
        read = self.client.pipeline(transaction=False)
        for job in jobs.values():
            record, steps, _, _, trace = step_keys(self.keys, job.ref("1"))[:5]
            read.hgetall(record).hgetall(steps).lrange(trace, 0, -1)
            read.ttl(record).ttl(steps).ttl(trace)
        for session_id in sessions:
            read.hgetall(self.keys.session(session_id)).lrange(self.keys.waiting(session_id), 0, -1)
            read.lrange(self.keys.log(session_id), 0, -1)
        for p in sorted({partition(session_id) for session_id in sessions}):
            read.zrange(self.keys.index(p, "due"), 0, -1, withscores=True).zrange(self.keys.index(p, "owed"), 0, -1)
            read.hkeys(self.keys.index(p, "letters")).zrange(self.keys.index(p, "dead"), 0, -1)
            read.hgetall(self.keys.index(p, "counters"))
        replies = iter(read.execute())
        held: dict[str, Any] = {name: {} for name in ("jobs", "rows", "traces", "sessions", "due")}
        held |= {"cancelled": set(), "owed": set(), "letters": set(), "counters": Counter()}
        for job_id in jobs:
            self._read_job(held, job_id, *islice(replies, 3))
            assert -1 not in islice(replies, 3), f"a key of {job_id} never expires"
        for session_id in sessions:
            held["sessions"][session_id] = _session(*islice(replies, 3))
        while five := list(islice(replies, 5)):
            held["due"] |= {_ref(entry): _when(int(at_ms)) for entry, at_ms in five[0]}
            held["owed"] |= {_ref(entry) for entry in five[1]}
            held["letters"] |= {job_id.decode() for job_id in five[2]}
            assert sorted(five[2]) == sorted(five[3]), "the index of dead letters and their records differ"
            held["counters"].update({name.decode(): int(value) for name, value in five[4].items()})
        return held

    def _read_job(self, held: dict[str, Any], job_id: str, record: Any, steps: Any, trace: Any) -> None:
        texts = {key.decode(): value.decode() for key, value in record.items()}
        held["jobs"][job_id] = _plain(job_of(job_id, texts))
        held["traces"][job_id] = [entry.decode() for entry in trace]
        if "cancel" in texts:
            held["cancelled"].add(job_id)
        rows = {key.decode(): value.decode() for key, value in steps.items()}
        for step in (step for step in rows if ":" not in step):
            state, fence, *rest = _row(rows[step], rows.get(f"{step}:call"))
            held["rows"][job_id, step] = (state, self.rank(job_id, fence), *rest)

    def rank(self, job_id: str, fence: int) -> int:
        """Fences in Redis are as large as its clock, in memory they are counted: the how-manieth of its job it is."""
        known = self.fences.setdefault(job_id, [0])
        if fence not in known:
            assert fence > known[-1], "a fence is not larger than those before it"
            known.append(fence)
        return known.index(fence)


def _session(hashed: dict[bytes, bytes], waiting: list[bytes], log: list[bytes]) -> tuple[Any, ...]:
    cache = LogCache()
    messages = cache.extend("s", cache.mark("s"), 0, 0, log).messages
    active = hashed[b"active"].decode() if b"active" in hashed else None
    lined_up = [entry.decode().partition("|")[0] for entry in waiting]
    return active, lined_up, int(hashed.get(b"groups", 0)), messages


def expire_in_redis(client: Any, keys: Keyspace, ref: StepRef) -> None:
    """Write the end of a step's lease, or its due time, into the past."""
    steps, due = step_keys(keys, ref)[1], step_keys(keys, ref)[5]
    fields = client.hget(steps, ref.step).split(b"|")
    fields[2] = b"1"
    client.hset(steps, ref.step, b"|".join(fields))
    client.zadd(due, {member(ref): 1}, xx=True)


def expire_in_memory(store: MemoryStore, ref: StepRef) -> None:
    """The same."""
    store.state.jobs[ref.job_id].rows[ref.step].until_ms = 1
    if ref in store.state.due:
        store.state.due[ref] = 1


def new_job(job_id: str, session_id: str, **fields: Any) -> NewJob:
    """A job as `jobs.new_job` makes it."""
    fixed = {"agent": "clerk", "agent_version": "v1", "input": f'the "input" of {job_id}', "timeout_ms": HOUR_MS}
    return NewJob(job_id=job_id, session_id=session_id, **(fixed | {"max_steps": 50} | fields))


def _answer(call: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    try:
        return call(*args, **options)
    except Exception as error:
        return type(error)


def _plain(value: Any) -> Any:
    """The same for equal answers: claims and jobs without moments."""
    if isinstance(value, Job):
        plain = value.model_dump(exclude=set(TIMES))
        plain["waiting"] = {**plain["waiting"], "until_ms": None} if plain["waiting"] else None
        return plain | {name: getattr(value, name) is None for name in TIMES}
    if isinstance(value, Claim):
        names = ("ref", "fence", "nonce", "attempt", "losses", "interrupted", "ending", "call", "group", "decision")
        return {name: getattr(value, name) for name in (*names, "log", "flags")} | {"job": _plain(value.job)}
    if isinstance(value, tuple) and value and isinstance(value[0], list):  # a sweep
        return sorted(ref.model_dump_json() for ref in value[0]), value[1] > 0, value[1] < 0
    return value


def _row_of(row: Row) -> tuple[Any, ...]:
    raw = row.call.raw_arguments if row.call else None
    numbers = (row.fence, _when(row.until_ms), row.attempt, row.losses)
    return (row.state, *numbers, row.nonce, row.begun, row.decision, raw)


def _row(text: str, call: str | None) -> tuple[Any, ...]:
    state, fence, until_ms, attempt, losses, nonce, decided = text.split("|", 6)
    raw = ToolCall.model_validate_json(call).raw_arguments if call else None
    begun, nonce = nonce.startswith("!"), nonce.removeprefix("!")
    return state, int(fence), _when(int(until_ms)), int(attempt), int(losses), nonce, begun, read_decision(decided), raw


def _ref(entry: bytes) -> StepRef:
    return StepRef.model_validate(ref_of(entry).model_dump())


def _when(at_ms: int) -> str:
    return "never" if at_ms == 0 else "past" if at_ms <= 1 else "ahead"
