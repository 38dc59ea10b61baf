"""Dead letters are listed page by page, with a filter. Every test runs on a real Redis and on the Redis in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.keyspace import Keyspace, partition
from midwatch.orchestration.protocol.letter_filter import LetterFilter
from midwatch.orchestration.store import letters
from midwatch.orchestration.store.letters import Entry
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.step import StepKind
from tests.contract.store_bench import Bench, in_process_bench, redis_bench

NEWEST_MS = 1_700_000_000_000


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(letters, "PAGE", 3)
    if request.param == "in_process":
        return in_process_bench()
    return redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"))


def store(bench: Bench, number: int, *, ms: int | None = None, **fields: Any) -> str:
    """Store a letter as `finish` does. Letter 0 is the newest."""
    job_id, session_id = f"job-{number:03d}", f"s{number}"
    dead_ms = NEWEST_MS - number * 10 if ms is None else ms
    failure = fields.pop("failure", Failure(kind=FailureKind.OVERLOADED, detail="529"))
    letter = DeadLetterRecord(
        **({"agent": "clerk", "step": "1", "kind": StepKind.MODEL} | fields),
        job_id=job_id, session_id=session_id, failure=failure, dead_ms=dead_ms,
    )  # fmt: skip
    put(bench, session_id, job_id, dead_ms, letter.model_dump_json(exclude_none=True))
    return job_id


def put(bench: Bench, session_id: str, job_id: str, dead_ms: int, raw: str) -> None:
    p = partition(session_id)
    bench.client.zadd(bench.keys.index(p, "dead"), {job_id: dead_ms})
    bench.client.hset(bench.keys.index(p, "letters"), job_id, raw)


def remove(bench: Bench, number: int) -> None:
    p = partition(f"s{number}")
    bench.client.zrem(bench.keys.index(p, "dead"), f"job-{number:03d}")
    bench.client.hdel(bench.keys.index(p, "letters"), f"job-{number:03d}")


def listed(bench: Bench, **given: Any) -> list[str]:
    return [letter.job_id for letter in bench.operations.dead_letters(wanted=LetterFilter.make(**given))]


def test_all_pages_together_are_the_letters_newest_first(bench):
    """The pages of 16 partitions are merged by time."""
    stored = [store(bench, number) for number in range(40)]
    pages = list(bench.operations.letters.pages())
    assert [letter.job_id for page in pages for letter in page] == stored
    assert max(len(page) for page in pages) == 3
    assert bench.operations.letters.count() == 40
    assert listed(bench) == stored


def test_letters_of_one_millisecond_are_all_listed_once(bench):
    """There are more of them than one piece of the index holds."""
    session = "s0"
    for number in range(20):
        letter = {"job_id": f"job-{number}", "session_id": session, "agent": "a", "step": "1", "kind": "model",
                  "failure": {"kind": "timeout", "detail": ""}, "dead_ms": NEWEST_MS}  # fmt: skip
        put(bench, session, f"job-{number}", NEWEST_MS, json.dumps(letter))
    found = listed(bench)
    assert len(found) == 20
    assert set(found) == {f"job-{number}" for number in range(20)}


def test_letters_removed_between_pages_hide_no_other_letter(bench):
    """A replay of a page's letters removes them while the listing goes on."""
    stored = [store(bench, number) for number in range(30)]
    found = []
    for page in bench.operations.letters.pages():
        for letter in page:
            found.append(letter.job_id)
            remove(bench, int(letter.job_id[-3:]))
    assert found == stored


def test_page_can_begin_after_a_letter_that_has_left(bench):
    """A link to the next page stays valid."""
    stored = [store(bench, number) for number in range(10)]
    first = next(bench.operations.letters.pages())
    place = Entry.parse(str(first.entries[-1]))
    remove(bench, 2)
    rest = [letter.job_id for page in bench.operations.letters.pages(after=place) for letter in page]
    assert rest == stored[3:]
    with pytest.raises(ValueError, match="MS-JOB"):
        Entry.parse("17")


def test_damaged_letters_are_counted_and_hide_no_other(bench):
    """One letter of a later release, one index of a wrong type, one partition's letters of a wrong type."""
    stored = [store(bench, number) for number in range(12)]
    put(bench, "s3", stored[3], NEWEST_MS - 30, json.dumps({"v": 7}))
    damaged_index, damaged_letters = partition("s4"), partition("s5")
    assert len({damaged_index, damaged_letters, partition("s3")}) == 3
    for p, name in ((damaged_index, "dead"), (damaged_letters, "letters")):
        bench.client.delete(bench.keys.index(p, name))
        bench.client.set(bench.keys.index(p, name), "x")
    found = bench.operations.dead_letters()
    bench.client.delete(bench.keys.index(damaged_index, "dead"), bench.keys.index(damaged_letters, "letters"))
    hidden = (damaged_index, damaged_letters)
    assert [letter.job_id for letter in found] == [
        job_id for number, job_id in enumerate(stored) if number != 3 and partition(f"s{number}") not in hidden
    ]
    assert sorted(error.what for error in found.unreadable) == sorted(
        [
            "the dead letter of job job-003",
            f"the dead letters of partition {damaged_letters}",
            f"the index of dead letters of partition {damaged_index}",
        ]
    )


def test_conditions_match_fields_and_patterns(bench):
    """A letter must meet all conditions. Of several words for one condition, any may match."""
    timeout = Failure(kind=FailureKind.TIMEOUT, detail="", limit="session_timeout_s")
    by_time = store(bench, 1, failure=timeout, agent="support-eu", model="anthropic:claude-sonnet-4-6")
    by_tool = store(bench, 2, tool="refund", downstream="shop", agent="support-us")
    other = store(bench, 3, agent="writer", downstream="openai:gpt-5", model="openai:gpt-5")
    assert listed(bench, kind="session_timeout_s") == listed(bench, kind="timeout") == [by_time]
    assert listed(bench, kind=("timeout", "overloaded")) == [by_time, by_tool, other]
    assert listed(bench, agent="support-*") == [by_time, by_tool]
    assert listed(bench, agent="support-*", downstream="sh?p") == [by_tool]
    assert listed(bench, model="claude-*") == listed(bench, model="anthropic:*") == [by_time]
    assert listed(bench, tool="re*") == [by_tool]
    assert listed(bench, agent="Support-*") == [], "names are case-sensitive"
    now_ms = int(bench.client.time()[0]) * 1_000
    young = store(bench, 4, ms=now_ms - 60_000)
    assert listed(bench, older_s=7_200) == [by_time, by_tool, other]
    assert listed(bench, older_s=30) == [young, by_time, by_tool, other]


def test_unknown_kind_is_refused_with_the_known_ones():
    """A typing error must not look like an empty list."""
    with pytest.raises(ConfigError, match=r"'timeuot': did you mean 'timeout'\? expected one of: .*max_wait_s"):
        LetterFilter.make(kind="timeuot")
    assert LetterFilter.make(kind="expires_s").kind == ("expires_s",)


def test_keys_of_the_index_are_those_of_the_script(bench):
    """A letter that `finish` writes is listed."""
    claim = bench.to_dead_letter()
    assert listed(bench) == [claim.ref.job_id]
    assert isinstance(bench.keys, Keyspace)
