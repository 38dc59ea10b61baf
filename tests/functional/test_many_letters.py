"""A listing of very many dead letters: it is complete, and it does not hold them all."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc

import pytest
import redis as redis_py

from midwatch.orchestration.keyspace import Keyspace, partition
from midwatch.schemas.deadletter import DeadLetterRecord, Try
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.step import StepKind
from midwatch.workers.celery_app.dispatch import connect
from midwatch.workers.cli.__main__ import main
from midwatch.workers.settings import settings

LETTERS = 20_000
MOST_BYTES = 6_000_000
"""20,000 letters take some 150 MB as records, and 3,000 letters some 22 MB."""


def store_letters(client: redis_py.Redis, keys: Keyspace, number: int) -> None:
    """Store letters as an outage leaves them. Their keys get a time to live, as the leak check wants it."""
    failure = Failure(kind=FailureKind.OVERLOADED, detail="529: " + "the service is overloaded, try again later " * 4)
    tries = tuple(Try(at_ms=n, worker="host.1", attempt=n, failure=failure) for n in range(3))
    now_ms = int(client.time()[0]) * 1_000
    pipe = client.pipeline(transaction=False)
    for n in range(number):
        letter = DeadLetterRecord(
            job_id=f"job-{n:06d}", session_id=f"s{n}", agent="clerk", step="1", kind=StepKind.MODEL, failure=failure,
            dead_ms=now_ms - n, tries=tries, model="anthropic:claude-x", downstream="anthropic:claude-x",
        )  # fmt: skip
        p = partition(letter.session_id)
        pipe.zadd(keys.index(p, "dead"), {letter.job_id: letter.dead_ms})
        pipe.hset(keys.index(p, "letters"), letter.job_id, letter.model_dump_json(exclude_none=True))
        if n % 1_000 == 999:
            pipe.execute()
    pipe.execute()


@pytest.fixture
def many(redis: redis_py.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Keyspace:
    keys = Keyspace(prefix)
    store_letters(redis, keys, LETTERS)
    settings.cache_clear()
    yield keys
    settings.cache_clear()


class Counter(io.TextIOBase):
    """A stdout that keeps only the number of characters, and the beginning and the end of the text."""

    def __init__(self) -> None:
        self.characters, self.first, self.last = 0, "", ""

    def write(self, text: str) -> int:
        self.characters += len(text)
        self.first = (self.first + text)[:2_000]
        self.last = (self.last + text)[-5_000:]
        return len(text)


def test_20_000_letters_are_all_read_and_not_held(many: Keyspace) -> None:
    """`for letter in client.dead_letters` reads them page by page."""
    client = connect()
    next(iter(client.dead_letters))  # imports are not counted
    tracemalloc.start()
    try:
        seen = sum(1 for _ in client.dead_letters)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        client.store.client.close()
    assert seen == LETTERS
    assert peak < MOST_BYTES


def test_json_of_many_letters_is_printed_and_not_held(many: Keyspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command prints each page as it reads it. Tracing makes it slow, so it prints 3,000."""
    out = Counter()
    monkeypatch.setattr(sys, "stdout", out)
    main(["dlq", "list", "--json", "--limit", "1"])
    start = out.characters
    tracemalloc.start()
    try:
        code = main(["dlq", "list", "--json", "--limit", "3000"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert code == 0
    assert out.characters - start > 3_000_000
    assert "job-002999" in out.last
    assert peak < MOST_BYTES


def test_filter_over_20_000_letters_finds_the_one(redis: redis_py.Redis, many: Keyspace, capsys) -> None:
    """The filter reads them all, and prints one."""
    p = partition("s17")
    raw = json.loads(redis.hget(many.index(p, "letters"), "job-000017"))
    redis.hset(many.index(p, "letters"), "job-000017", json.dumps({**raw, "agent": "support-eu"}))
    assert main(["dlq", "list", "--json", "--agent", "support-*"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [letter["job_id"] for letter in found["dead_letters"]] == ["job-000017"]
    assert found["poison"] == []
