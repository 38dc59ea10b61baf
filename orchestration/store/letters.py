"""Read dead letters and poison messages. Dead letters are read page by page, so a listing need not hold them all."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from itertools import islice
from typing import Any, NamedTuple

import redis

from midwatch.orchestration.errors import UnreadableRecord
from midwatch.orchestration.keyspace import PARTITIONS, Keyspace
from midwatch.orchestration.protocol.letter_filter import EVERY_LETTER, LetterFilter
from midwatch.orchestration.protocol.reading import Listing, explain, read_list, read_listing, split_errors
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord

PAGE = 200
"""Letters that are read in one round trip. A letter with its tries takes some 2 KB."""


class Entry(NamedTuple):
    """One entry of the index of dead letters, in the order of the listing."""

    dead_ms: float
    job_id: bytes
    partition: int


class Letters:
    """The dead letters of a fleet, the newest first, and its poison messages."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self._client = client
        self._keys = keys

    def pages(self, wanted: LetterFilter = EVERY_LETTER, *, until_ms: int = 0) -> Iterator[Listing[DeadLetterRecord]]:
        """The letters that match, page by page. A page may be empty. `unreadable` has the errors of damaged letters.

        A letter that is written, replayed or discarded meanwhile does not hide another.

        Args:
            wanted: the conditions.
            until_ms: leave out letters that are newer than this time of the server. 0: leave out none.

        """
        if wanted.older_ms:
            oldest_allowed_ms = self._now_ms() - wanted.older_ms
            until_ms = min(until_ms, oldest_allowed_ms) if until_ms else oldest_allowed_ms
        damaged: Listing[DeadLetterRecord] = Listing()
        readable = self._readable_partitions(damaged.unreadable)
        indexes = [self._entries(p, until_ms, damaged.unreadable) for p in readable]
        newest_first = merge(*indexes, reverse=True)
        while entries := tuple(islice(newest_first, PAGE)):
            page = self._read(entries)
            page.unreadable += damaged.unreadable
            damaged.unreadable.clear()
            yield Listing((letter for letter in page if wanted.matches(letter)), page.unreadable)
        if damaged.unreadable:
            yield damaged

    def newest(self, limit: int, wanted: LetterFilter = EVERY_LETTER) -> Listing[DeadLetterRecord]:
        """At most `limit` letters that match."""
        found: Listing[DeadLetterRecord] = Listing()
        for page in self.pages(wanted):
            found.extend(page)
            found.unreadable += page.unreadable
            if len(found) >= limit:
                break
        return Listing(found[:limit], found.unreadable)

    def poison(self, limit: int) -> Listing[PoisonRecord]:
        """Messages that are not valid steps, the newest first."""
        pipe = self._client.pipeline(transaction=False)
        pipe.lrange(self._keys.poison(), 0, limit - 1)
        reply = run_pipeline(pipe, with_errors=True)[0]
        return read_list(reply, "the poison list", "a poison record", PoisonRecord.model_validate_json)

    def _entries(self, p: int, until_ms: int, unreadable: list[UnreadableRecord]) -> Iterator[Entry]:
        """The index of one partition, the newest first. It is read in pieces, each from the last entry on."""
        key, count = self._keys.index(p, "dead"), PAGE
        bound, last = float(until_ms or "inf"), None
        while True:
            rows = self._run_one(
                "zrange", key, bound, "-inf", desc=True, byscore=True, offset=0, num=count, withscores=True
            )
            if isinstance(rows, Exception):
                unreadable.append(UnreadableRecord(f"the index of dead letters of partition {p}", explain(rows)))
                return
            found = [Entry(score, job_id, p) for job_id, score in rows]
            fresh = [entry for entry in found if last is None or entry < last]
            yield from fresh
            if len(found) < count:
                return
            if fresh:
                last = fresh[-1]
                bound = last.dead_ms
            else:  # more letters of one millisecond than a piece holds
                count *= 2

    def _readable_partitions(self, unreadable: list[UnreadableRecord]) -> list[int]:
        pipe = self._client.pipeline(transaction=False)
        for p in range(PARTITIONS):
            pipe.hlen(self._keys.index(p, "letters"))
        replies = enumerate(run_pipeline(pipe, with_errors=True))
        found, errors = split_errors(
            (f"the dead letters of partition {p}", reply if isinstance(reply, Exception) else p) for p, reply in replies
        )
        unreadable += errors
        return found

    def _read(self, entries: tuple[Entry, ...]) -> Listing[DeadLetterRecord]:
        """Read the letters of these entries. A letter that was replayed meanwhile is left out."""
        pipe = self._client.pipeline(transaction=False)
        for entry in entries:
            pipe.hget(self._keys.index(entry.partition, "letters"), entry.job_id)
        replies = zip(entries, run_pipeline(pipe, with_errors=True), strict=True)
        named = (
            (f"the dead letter of job {entry.job_id.decode(errors='replace')}", raw) for entry, raw in replies if raw
        )
        return read_listing(named, _letter_of)

    def _run_one(self, command: str, *args: Any, **options: Any) -> Any:
        pipe = self._client.pipeline(transaction=False)
        getattr(pipe, command)(*args, **options)
        return run_pipeline(pipe, with_errors=True)[0]

    def _now_ms(self) -> int:
        seconds, micros = self._run_one("time")
        return int(seconds) * 1_000 + int(micros) // 1_000


def _letter_of(reply: Any) -> DeadLetterRecord:
    if isinstance(reply, Exception):
        raise reply
    return DeadLetterRecord.model_validate_json(reply)
