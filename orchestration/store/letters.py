"""Read dead letters page by page, so a listing need not hold them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Any, NamedTuple

import redis

from midwatch.orchestration.errors import UnreadableRecord
from midwatch.orchestration.keyspace import PARTITIONS, Keyspace
from midwatch.orchestration.protocol.letter_filter import EVERY_LETTER, LetterFilter
from midwatch.orchestration.protocol.reading import Listing, explain, read_listing, split_errors
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.schemas.deadletter import DeadLetterRecord

PAGE = 200
"""Letters that are read in one round trip. A letter with its tries takes some 2 KB."""


class Entry(NamedTuple):
    """One entry of the index of dead letters. Entries are ordered as the listing is, from its end."""

    dead_ms: float
    job_id: bytes
    partition: int = -1

    def __str__(self) -> str:
        return f"{self.dead_ms:.0f}-{self.job_id.decode(errors='replace')}"

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Read an entry from its text. Raises ValueError."""
        dead_ms, dash, job_id = text.partition("-")
        if not dash:
            raise ValueError("expected MS-JOB")
        return cls(float(int(dead_ms)), job_id.encode())


class Page(Listing[DeadLetterRecord]):
    """Some dead letters, and the place of each in the index."""

    def __init__(
        self,
        found: Iterable[tuple[Entry, DeadLetterRecord]] = (),
        unreadable: Iterable[UnreadableRecord] = (),
    ) -> None:
        pairs = list(found)
        super().__init__((letter for _, letter in pairs), unreadable)
        self.entries = [entry for entry, _ in pairs]


class Letters:
    """The dead letters of a fleet, the newest first, and its poison messages."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self._client = client
        self._keys = keys

    def pages(
        self, wanted: LetterFilter = EVERY_LETTER, *, until_ms: int = 0, after: Entry | None = None
    ) -> Iterator[Page]:
        """The letters that match, page by page. A page may be empty. `unreadable` has the errors of damaged letters.

        A letter that is written, replayed or discarded meanwhile does not hide another.

        Args:
            wanted: the conditions.
            until_ms: leave out letters that are newer than this time of the server. 0: leave out none.
            after: begin with the letter that comes after this one. It need not exist any more.

        """
        if wanted.older_ms:
            oldest_allowed_ms = self.now_ms() - wanted.older_ms
            until_ms = min(until_ms, oldest_allowed_ms) if until_ms else oldest_allowed_ms
        damaged = Page()
        readable = self._readable_partitions(damaged.unreadable)
        indexes = [self._entries(p, until_ms, after, damaged.unreadable) for p in readable]
        newest_first = merge(*indexes, reverse=True)
        while entries := tuple(islice(newest_first, PAGE)):
            page = self._read(entries)
            page.unreadable += damaged.unreadable
            damaged.unreadable.clear()
            matching = (pair for pair in zip(page.entries, page, strict=True) if wanted.matches(pair[1]))
            yield Page(matching, page.unreadable)
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

    def count(self) -> int:
        """Number of all dead letters."""
        pipe = self._client.pipeline(transaction=False)
        for p in range(PARTITIONS):
            pipe.zcard(self._keys.index(p, "dead"))
        return sum(reply for reply in run_pipeline(pipe, with_errors=True) if isinstance(reply, int))

    def _entries(
        self, p: int, until_ms: int, after: Entry | None, unreadable: list[UnreadableRecord]
    ) -> Iterator[Entry]:
        """The index of one partition, the newest first. It is read in pieces, each from the last entry on."""
        key, count = self._keys.index(p, "dead"), PAGE
        bound, last = float(until_ms or "inf"), after
        if after:
            bound = min(bound, after.dead_ms)
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

    def _read(self, entries: tuple[Entry, ...]) -> Page:
        """Read the letters of these entries. A letter that was replayed meanwhile is left out."""
        pipe = self._client.pipeline(transaction=False)
        for entry in entries:
            pipe.hget(self._keys.index(entry.partition, "letters"), entry.job_id)
        replies = zip(entries, run_pipeline(pipe, with_errors=True), strict=True)
        named = (
            (f"the dead letter of job {entry.job_id.decode(errors='replace')}", (entry, raw))
            for entry, raw in replies
            if raw
        )
        found = read_listing(named, _letter_of)
        return Page(found, found.unreadable)

    def _run_one(self, command: str, *args: Any, **options: Any) -> Any:
        pipe = self._client.pipeline(transaction=False)
        getattr(pipe, command)(*args, **options)
        return run_pipeline(pipe, with_errors=True)[0]

    def now_ms(self) -> int:
        """The server's time."""
        seconds, micros = self._run_one("time")
        return int(seconds) * 1_000 + int(micros) // 1_000


def _letter_of(stored: tuple[Entry, Any]) -> tuple[Entry, DeadLetterRecord]:
    entry, reply = stored
    if isinstance(reply, Exception):
        raise reply
    return entry, DeadLetterRecord.model_validate_json(reply)
