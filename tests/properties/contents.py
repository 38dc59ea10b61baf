"""The keys of one fleet on a server: in a form that can be compared with another server, and as the step machine reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import redis as redis_py
from fakeredis.model import Hash, ZSet

from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.store.conversation.log_cache import LogCache
from midwatch.orchestration.store.records import job_of, ref_of
from midwatch.schemas.job import Job
from midwatch.schemas.loss import Loss
from midwatch.schemas.message import Message
from midwatch.schemas.step import StepRef

HOUR_MS = 3_600_000
MOMENTS = ("created_ms", "started_ms", "deadline_ms", "ends_by_ms", "finished_ms", "held_since")
DURATIONS = ("held_ms", "max_worked_ms", "max_held_ms")

DUMP = """
local found = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind, held = redis.call('TYPE', key).ok, nil
  if kind == 'hash' then held = redis.call('HGETALL', key)
  elseif kind == 'list' then held = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'zset' then held = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  else held = { redis.call('GET', key) } end
  found[#found + 1] = { key, kind, redis.call('TTL', key), held }
end
return { redis.call('TIME'), found }
"""
"""All keys of a prefix in one round trip, on either server."""


class Fences:
    """Converts fences to ranks. A fence depends on its server's clock, but its rank within a job is the same on both servers."""

    def __init__(self) -> None:
        self._given: dict[str, list[int]] = {}

    def give(self, job_id: str, fence: int) -> None:
        """Record the fence of a claim."""
        given = self._given.setdefault(job_id, [])
        if fence not in given:
            assert not given or fence > given[-1], "a fence is not larger than those before it"
            given.append(fence)

    def rank(self, job_id: str, fence: int) -> int:
        """Return the rank of a fence. 0 if there was no claim yet."""
        return self._given[job_id].index(fence) + 1 if fence else 0


@dataclass
class Contents:
    """The keys of one fleet."""

    keys: dict[str, Any] = field(default_factory=dict)
    """Name without the prefix -> type, time to live and value. Times are hours from now, and fences are ranks."""
    raw: dict[str, Any] = field(default_factory=dict)
    """Name without the prefix -> the value as the server returned it."""

    @classmethod
    def read(cls, client: redis_py.Redis, prefix: str, fences: Fences) -> Contents:
        """Read all keys of a prefix."""
        server = client.get_connection_kwargs().get("server")
        (seconds, micros), found = _look(server) if server else client.eval(DUMP, 0, f"{prefix}*")
        reader, contents = _Reader(int(seconds) * 1_000 + int(micros) // 1_000, fences), cls()
        for key, kind, ttl_s, held in found:
            name = key.decode().replace(prefix, "")
            value = contents.raw[name] = _value(kind.decode(), held)
            hours = "never" if ttl_s == -1 else round(ttl_s / 3_600)
            contents.keys[_without_hour(name)] = (kind, hours, reader.comparable(name, value))
        return contents


def _look(server: Any) -> Any:
    """Read what DUMP returns from the objects of the server in this process. This is ten times as fast as its commands."""
    database, found = server.dbs[0], []
    for key in database:
        item = database[key]
        value, ttl_s = item.value, -1 if item.expireat is None else item.expireat - database.time
        if isinstance(value, Hash):
            found.append((key, b"hash", ttl_s, [part for pair in value.items() for part in pair]))
        elif isinstance(value, ZSet):
            found.append((key, b"zset", ttl_s, [part for entry in value for part in (entry, value[entry])]))
        else:
            listed = isinstance(value, list)
            found.append((key, b"list" if listed else b"string", ttl_s, list(value) if listed else [value]))
    return divmod(int(database.time * 1_000_000), 1_000_000), found


def _value(kind: str, held: list[bytes]) -> Any:
    if kind == "hash":
        return {name.decode(): value for name, value in zip(held[::2], held[1::2], strict=True)}
    if kind == "zset":
        return {entry.decode(): int(float(score)) for entry, score in zip(held[::2], held[1::2], strict=True)}
    return held


def _without_hour(name: str) -> str:
    head, found, _ = name.rpartition(":drift:")
    return head + found if found else name


class _Reader:
    """Converts values to a form that is equal on two servers."""

    def __init__(self, now_ms: int, fences: Fences) -> None:
        self._now_ms, self._fences = now_ms, fences

    def comparable(self, name: str, value: Any) -> Any:
        """Convert the value of a key."""
        parts = name.split(":")
        if parts[-1] in ("due", "owed", "jobs", "dead"):
            return {entry: self._when(at_ms) for entry, at_ms in value.items()}
        if parts[-1] == "log":
            return [_canonical(entry) for entry in value]
        if parts[-1] == "steps":
            return {step: self._step_field(parts[-2], step, text) for step, text in value.items()}
        if parts[-2] == "job" and isinstance(value, dict):
            return {name: self._job_field(parts[-1], name, text) for name, text in value.items()}
        return value

    def _when(self, at_ms: int) -> str:
        return "past" if at_ms <= 1 else f"{round((at_ms - self._now_ms) / HOUR_MS)} h"

    def _step_field(self, job_id: str, name: str, text: bytes) -> Any:
        if name.endswith(":why"):
            return self._shown(text)
        if name.endswith(":losses"):
            losses = [Loss.model_validate_json(line) for line in text.splitlines()]
            return [(loss.worker, loss.kind, loss.detail) for loss in losses]  # without times
        return text if ":" in name else self._row(job_id, text)

    def _row(self, job_id: str, text: bytes) -> Any:
        state, fence, until_ms, *rest = text.decode().split("|", 6)
        until = self._when(int(until_ms)) if int(until_ms) else "never"
        return (state, self._fences.rank(job_id, int(fence)), until, *rest)

    def _job_field(self, job_id: str, name: str, text: bytes) -> Any:
        if name in MOMENTS:
            return self._when(int(text))
        if name in DURATIONS:
            return round(int(text) / HOUR_MS)
        if name == "child":
            turn, *durations = text.decode().split("|")
            return turn, *(round(int(one) / HOUR_MS) for one in durations)
        if name == "fence":
            return self._fences.rank(job_id, int(text))
        if name == "committed":
            step, _, fence = text.decode().partition("|")
            return step, self._fences.rank(job_id, int(fence))
        if name in ("waiting", "holder"):
            return self._shown(text)
        return text

    def _shown(self, text: bytes) -> Any:
        shown = json.loads(text)
        return shown | {name: self._when(shown[name]) for name in ("at_ms", "since_ms", "until_ms") if shown.get(name)}


@lru_cache(10_000)
def _canonical(entry: bytes) -> Any:
    """Rewrite JSON with sorted names. Scripts write JSON too, and the servers' cjson libraries order and escape differently."""
    return json.dumps(json.loads(entry), sort_keys=True) if entry.startswith(b"{") else entry


# --- as the step machine reads it


@dataclass(frozen=True)
class Row:
    """One step of the current turn."""

    state: str
    fence: int
    until_ms: int
    nonce: str
    has_call: bool


@dataclass
class JobState:
    """A job: its record, and facts that the record does not show."""

    record: Job
    cancelled: bool
    discarded: bool
    committed: str
    rows: dict[str, Row] = field(default_factory=dict)

    def ref(self, step: str) -> StepRef:
        """Return the address of one of the job's steps."""
        record = self.record
        return StepRef(job_id=record.job_id, session_id=record.session_id, step=step, priority=record.priority)

    def parked(self) -> list[str]:
        """Return the steps that wait for a human."""
        return [step for step, row in self.rows.items() if row.state == "parked"]


@dataclass
class SessionState:
    """A session's conversation, its active job, and the jobs that wait for it."""

    active: str | None
    groups: int
    waiting: list[str] = field(default_factory=list)
    log: tuple[Message, ...] = ()


@dataclass
class State:
    """The state of the step machine."""

    jobs: dict[str, JobState] = field(default_factory=dict)
    sessions: dict[str, SessionState] = field(default_factory=dict)
    due: set[StepRef] = field(default_factory=set)
    owed: set[StepRef] = field(default_factory=set)
    letters: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, contents: Contents) -> State:
        """Read the state from a server's contents."""
        state, raw = cls(), contents.raw
        for name in sorted(raw):
            parts, value = name.split(":"), raw[name]
            if parts[-1] == "due":
                state.due |= {_ref(entry) for entry in value}
            elif parts[-1] == "owed":
                state.owed |= {_ref(entry) for entry in value}
            elif parts[-1] == "letters":
                state.letters |= set(value)
            elif parts[-2] == "job" and isinstance(value, dict):
                state.jobs[parts[-1]] = _job(parts[-1], value, raw.get(f"{name}:steps", {}))
            elif parts[-2] == "session":
                state.sessions[parts[-1]] = _session(value, raw.get(f"{name}:waiting", []), raw.get(f"{name}:log", []))
        for job in state.jobs.values():  # a session has no record if its only job was cancelled before it began
            state.sessions.setdefault(job.record.session_id, SessionState(None, 0))
        return state

    def held(self, claim: Claim, ref: StepRef | None = None) -> bool:
        """Does the claim still hold its step, or the given inline call of its turn?"""
        ref = ref or claim.ref
        row = self.jobs[ref.job_id].rows.get(ref.step)
        return row is not None and row.fence == claim.fence and row.state in ("started", "waiting")

    def open_steps(self) -> Iterator[tuple[StepRef, Row]]:
        """Yield all steps that have a row."""
        for job in self.jobs.values():
            for step, row in job.rows.items():
                yield job.ref(step), row


def _job(job_id: str, fields: dict[str, bytes], steps: dict[str, bytes]) -> JobState:
    record = job_of(job_id, {name: value.decode() for name, value in fields.items()})
    committed = fields.get("committed", b"").decode()
    job = JobState(record, "cancel" in fields, "discarded" in fields, committed)
    for step in sorted(step for step in steps if ":" not in step):
        state, fence, until_ms, _, _, nonce, *_ = steps[step].decode().split("|")
        row = Row(state, int(fence), int(until_ms), nonce.removeprefix("!"), f"{step}:call" in steps)
        job.rows[step] = row
    return job


def _session(fields: dict[str, bytes], waiting: list[bytes], log: list[bytes]) -> SessionState:
    active = fields["active"].decode() if "active" in fields else None
    lined_up = [entry.decode().partition("|")[0] for entry in waiting]
    return SessionState(active, int(fields.get("groups", 0)), lined_up, _in_order(tuple(log)))


@lru_cache(1_000)
def _in_order(log: tuple[bytes, ...]) -> tuple[Message, ...]:
    cache = LogCache()
    return cache.extend("s", cache.mark("s"), 0, 0, log).messages


def _ref(entry: str) -> StepRef:
    return StepRef.model_validate(ref_of(entry).model_dump())
