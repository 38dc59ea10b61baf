"""The index of letters to redrive, by cause, and the state of each cause's redrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import ValidationError

from midwatch.orchestration.client.letters.replays import Replayed
from midwatch.orchestration.keyspace import PARTITIONS
from midwatch.orchestration.protocol.redrive import RedriveGroup
from midwatch.orchestration.store.operations import Operations, log
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.orchestration.store.script_calls import redrive
from midwatch.schemas.deadletter import DeadLetterRecord

MOST_GROUPS = 1_000
"""Causes that are looked at. The others wait until some of these have healed."""


class Entry(NamedTuple):
    """One letter of the index. Entries are ordered by cause, by redrives, and by job."""

    text: bytes
    partition: int

    @property
    def job_id(self) -> str:
        """The job of the letter."""
        return self.text.rpartition(b"\t")[2].decode(errors="replace")


class RedriveIndex:
    """Reads the index. No command reads more of it than the letters that are taken, and one entry of each cause."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._client = operations.client
        self._keys = [operations.keys.index(p, "redrive") for p in range(PARTITIONS)]
        self._states = operations.keys.redrive()

    def hold_lease(self, worker: str, lease_ms: int) -> bool:
        """Take or renew the lease of the one worker that redrives letters. Raises StoreUnavailable."""
        call = redrive.hold_lease(self._operations.keys, worker=worker, lease_ms=lease_ms)
        reply = self._operations.run_each([call])[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def groups(self) -> list[RedriveGroup]:
        """The causes of all letters in the index. Each one costs one command for each partition."""
        found: set[bytes] = set()
        bounds = dict.fromkeys(self._keys, b"-")
        while bounds and len(found) < MOST_GROUPS:
            pipe = self._client.pipeline(transaction=False)
            for key, bound in bounds.items():
                pipe.zrangebylex(key, bound, "+", start=0, num=1)
            replies = zip(list(bounds), run_pipeline(pipe, with_errors=True), strict=True)
            for key, reply in replies:
                if isinstance(reply, Exception) or not reply:  # a damaged index of one partition hides no other
                    del bounds[key]
                    continue
                group = reply[0].partition(b"\t")[0]
                found.add(group)
                bounds[key] = b"(" + group + b"\t\xff"  # behind the last letter of this cause
        return [group for group in map(_read_group, sorted(found)) if group]

    def take(self, group: RedriveGroup, count: int) -> list[Entry]:
        """At most `count` entries of a cause, those first that were redriven least."""
        first, last = f"[{group}\t".encode(), f"[{group}\t".encode() + b"\xff"
        pipe = self._client.pipeline(transaction=False)
        for key in self._keys:
            pipe.zrangebylex(key, first, last, start=0, num=count)
        found = [
            Entry(text, p)
            for p, reply in enumerate(run_pipeline(pipe, with_errors=True))
            if not isinstance(reply, Exception)
            for text in reply
        ]
        return sorted(found)[:count]

    def read(self, entries: Sequence[Entry]) -> list[Replayed | None]:
        """Where the jobs of these entries stopped. None: there is no such letter, or it can't be read."""
        pipe = self._client.pipeline(transaction=False)
        for entry in entries:
            pipe.hget(self._operations.keys.index(entry.partition, "letters"), entry.job_id)
        return [_read_letter(raw) for raw in run_pipeline(pipe, with_errors=True)]

    def drop(self, entries: Sequence[Entry]) -> None:
        """Remove entries whose letters have left without them, or can't be replayed."""
        pipe = self._client.pipeline(transaction=False)
        for entry in entries:
            pipe.zrem(self._keys[entry.partition], entry.text)
        run_pipeline(pipe, with_errors=True)

    def read_states(self) -> dict[str, bytes]:
        """The stored state of each cause, by the text of the cause."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(self._states)
        reply = run_pipeline(pipe, with_errors=True)[0]
        return {} if isinstance(reply, Exception) else {key.decode(errors="replace"): raw for key, raw in reply.items()}

    def write_states(self, states: Mapping[str, str | None]) -> None:
        """Store the states. None: the cause has no letters left."""
        pipe = self._client.pipeline(transaction=False)
        for group, state in states.items():
            if state is None:
                pipe.hdel(self._states, group)
            else:
                pipe.hset(self._states, group, state)
        run_pipeline(pipe)


def _read_group(text: bytes) -> RedriveGroup | None:
    try:
        return RedriveGroup.parse(text.decode())
    except ValueError:  # an entry of a later release, or a damaged one
        log.warning("redrive.unreadable", entry=text.decode(errors="replace")[:100])
        return None


def _read_letter(raw: object) -> Replayed | None:
    if not isinstance(raw, bytes):
        return None
    try:
        return Replayed.of(DeadLetterRecord.model_validate_json(raw))
    except ValidationError:
        return None
