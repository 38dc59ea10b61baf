"""Notice that Redis has lost its data: it was flushed, restarted without its file, or was replaced by another server.

A process remembers which calls it has begun that may not run twice. When it notices a loss, it writes them to Redis. If a
later claim of such a call finds an older fence in its row, Redis has forgotten the run: the effect is unknown, and the call does
not run again by itself.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import redis

from midwatch.orchestration.keyspace import KEPT_S, Keyspace, partition
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.schemas.step import StepRef

log = get_logger("midwatch.data")

MOST_CALLS = 10_000
"""How many calls a process remembers, the newest ones. One takes about 300 bytes."""

LOOK_S = 1.0
"""Shortest time between two checks of a process."""


@dataclass(frozen=True)
class DataMark:
    """What the fleet knows of its data. It is stored in Redis, so it is gone when the data are."""

    mark: str
    """A random id. Another one means that the data were lost."""
    server: str
    """`run_id` of the Redis server, or '' if it is not known."""
    lost_ms: int = 0
    """When workers noticed that all data were lost."""
    moved_ms: int = 0
    """When workers noticed another server, for example after a restart or a failover. Its last writes may be missing."""

    @classmethod
    def read(cls, raw: Any) -> DataMark | None:
        """Read the stored text. None if there is none, or if it is damaged."""
        try:
            return cls(**{name: value for name, value in json.loads(raw).items() if name in cls.__annotations__})
        except (TypeError, ValueError, AttributeError):
            return None


class DataWatch:
    """One for each process. Thread-safe."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self._client = client
        self._keys = keys
        self._known: DataMark | None = None
        self._begun: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        self._look_at_s = 0.0
        self._lock = threading.Lock()

    def note_begin(self, claim: Claim) -> None:
        """Remember that this call begins, and that it may not run twice."""
        ref = claim.ref
        with self._lock:
            self._begun[ref.session_id, ref.job_id, ref.step] = claim.fence
            while len(self._begun) > MOST_CALLS:
                self._begun.popitem(last=False)

    def look(self, *, now: bool = False) -> bool:
        """Check whether the data are still there. Without `now`, do this at most once a second.

        Returns True if a loss was noticed.

        Raises:
            StoreUnavailable: Redis can't be reached.

        """
        with self._lock:
            at_s = time.monotonic()
            if at_s < self._look_at_s and not now:
                return False
            self._look_at_s = at_s + LOOK_S
            return self._look()

    def _look(self) -> bool:
        found, server, now_ms = self._read()
        known = self._known
        if found is None:
            mark = DataMark(secrets.token_hex(8), server, lost_ms=now_ms if known else 0)
            self._write(mark, only_if_absent=True)
            found, _, _ = self._read()
            if found is None:  # damaged: its type is another one
                self._write(mark)
                found = mark
        is_lost = known is not None and found.mark != known.mark
        is_moved = known is not None and bool(server) and server != known.server
        if server and found.server != server:
            found = DataMark(found.mark, server, found.lost_ms, now_ms if found.server else found.moved_ms)
            self._write(found)
        self._known = DataMark(found.mark, server or (known.server if known else ""), found.lost_ms, found.moved_ms)
        if is_lost:
            log.error("data.lost", calls=len(self._begun))
        elif is_moved:
            log.warning("data.other_server", calls=len(self._begun))
        if is_lost or is_moved:
            self._report()
        return is_lost or is_moved

    def _read(self) -> tuple[DataMark | None, str, int]:
        """The stored mark, the server's `run_id` and its time in ms."""
        pipe = self._client.pipeline(transaction=False)
        pipe.get(self._keys.data_mark())
        pipe.time()
        pipe.expire(self._keys.data_mark(), KEPT_S)
        raw, at, _ = run_pipeline(pipe, with_errors=True)
        now_ms = int(at[0] * 1_000 + at[1] // 1_000) if isinstance(at, tuple) else 0
        return DataMark.read(raw), self._read_server(), now_ms

    def _read_server(self) -> str:
        """`run_id` of the server. A cluster has many servers, and a user may lack the right to ask."""
        if isinstance(self._client, redis.RedisCluster):
            return ""
        pipe = self._client.pipeline(transaction=False)
        pipe.info("server")
        info = run_pipeline(pipe, with_errors=True)[0]
        return str(info.get("run_id", "")) if isinstance(info, dict) else ""

    def _write(self, mark: DataMark, *, only_if_absent: bool = False) -> None:
        pipe = self._client.pipeline(transaction=False)
        pipe.set(self._keys.data_mark(), json.dumps(vars(mark)), ex=KEPT_S, nx=only_if_absent)
        run_pipeline(pipe)

    def _report(self) -> None:
        """Write which calls this process has begun. A fence is a time, so the newest one counts."""
        pipe = self._client.pipeline(transaction=False)
        for (session_id, job_id, step), fence in self._begun.items():
            key = self._keys.index(partition(session_id), "begun")
            pipe.hset(key, call_name(StepRef.model_construct(job_id=job_id, session_id=session_id, step=step)), fence)
            pipe.expire(key, KEPT_S)
        run_pipeline(pipe, with_errors=True)


def call_name(ref: StepRef) -> str:
    """The field of a call in `begun`. `lua/claim.lua` reads it."""
    return f"{ref.job_id}|{ref.step}"


def read_mark(client: redis.Redis, keys: Keyspace) -> DataMark | None:
    """What the fleet knows of its data. None if no worker has run for 7 days."""
    pipe = client.pipeline(transaction=False)
    pipe.get(keys.data_mark())
    return DataMark.read(run_pipeline(pipe, with_errors=True)[0])
