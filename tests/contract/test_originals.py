"""What a store promises of originals (archived groups, whole results): given back, the oldest let go, none outliving its session
or shorter lived than it: on both servers, and what only a server can show."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import redis as redis_client

from midwatch.orchestration.context.recall import answer_recall
from midwatch.orchestration.keyspace import HELD_S, KEPT_S
from midwatch.orchestration.protocol.claims import Claim
from midwatch.schemas.job import JobStatus
from midwatch.schemas.memory import Memory
from tests.contract.store_bench import Bench, ending_of, in_process_bench, redis_bench, trace_of
from tests.contract.test_compaction import again, began, go_on, talk, without_group
from tests.unit.claims import tool_call

ORIGINAL_BYTES = 1_000


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """A store that keeps ten originals of a thousand bytes for each session."""
    if request.param == "in_process":
        bench = in_process_bench()
    else:
        bench = redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"))
    bench.store.originals_bytes = 10 * ORIGINAL_BYTES
    return bench


def body() -> bytes:
    """An original."""
    return os.urandom(ORIGINAL_BYTES)


def reaching(group: int) -> Memory:
    """A memory of all groups up to this one."""
    return Memory(through_group=group, compactions=1)


def compacted(bench: Bench, claim: Claim) -> Claim:
    """One turn more, and the oldest group archived; a group's original takes its room."""
    claim = go_on(bench, claim)
    nonce = f"c{claim.ref.turn}"
    work = began(bench, claim.ref.compaction(), nonce)
    group = min(message.group for message in work.messages if message.group > 1)
    done = without_group(work, group, archived=((group, body()),))
    assert bench.store.commit_compaction(work, done)
    return again(bench, claim)


def test_a_session_that_compacts_for_ever_keeps_what_came_last(bench):
    """Forty compactions, ten originals kept: the newest ten groups can be read, of the others nothing is left."""
    claim = talk(bench, turns=1)
    for _ in range(40):
        claim = compacted(bench, claim)
    kept = [group for group in range(2, 45) if bench.store.archived("s1", group) is not None]
    assert kept == list(range(32, 42))
    call = tool_call("recall", '{"group": 9}')
    assert "no longer kept" in answer_recall(bench.store, replace(claim, memory=reaching(41)), call, 0).content
    assert "in your window" in answer_recall(bench.store, replace(claim, memory=reaching(8)), call, 0).content


def test_results_and_groups_share_the_bound_in_the_order_they_came(bench):
    """A tool that returns megabytes at every turn is bounded without any compaction, and lets the older groups go first."""
    claim = compacted(bench, talk(bench, turns=1))
    for number in range(9):
        bench.store.put_result("s1", f"res-{number}", body())
    assert bench.store.archived("s1", 2) is not None
    bench.store.put_result("s1", "res-9", body())
    assert bench.store.archived("s1", 2) is None
    assert bench.store.get_result("s1", "res-0") is not None
    compacted(bench, claim)
    assert bench.store.get_result("s1", "res-0") is None
    assert bench.store.get_result("s1", "res-1") is not None


def test_a_result_that_is_kept_again_takes_no_second_place(bench):
    """A step that is tried again has the same handle: its bytes count once."""
    bench.begin()
    bench.store.put_result("s1", "res-first", body())
    for _ in range(30):
        bench.store.put_result("s1", "res-again", body())
    assert bench.store.get_result("s1", "res-first") is not None
    for number in range(9):
        bench.store.put_result("s1", f"res-{number}", body())
    assert bench.store.get_result("s1", "res-first") is None
    assert bench.store.get_result("s1", "res-again") is not None


def test_the_newest_original_is_kept_however_large(bench):
    """The model was just told its handle."""
    bench.begin()
    bench.store.put_result("s1", "res-small", body())
    bench.store.put_result("s1", "res-large", os.urandom(20 * ORIGINAL_BYTES))
    assert bench.store.get_result("s1", "res-small") is None
    assert bench.store.get_result("s1", "res-large") is not None


@pytest.fixture
def on_server(redis: redis_client.Redis, prefix: str) -> Bench:
    """The same on a server, whose memory and times to live can be looked at."""
    bench = redis_bench(redis, prefix)
    bench.store.originals_bytes = 10 * ORIGINAL_BYTES
    return bench


def test_a_sessions_memory_on_the_server_stays_bounded(on_server, redis):
    """After 20 compactions and after 60 its originals take the same: within the bound and what a server needs around it."""
    store, claim = on_server.store, talk(on_server, turns=1)
    taken: list[int] = []
    for number in range(60):
        claim = compacted(on_server, claim)
        if number in (19, 59):
            keys = (store.keys.archive("s1"), store.keys.results("s1"), store.keys.originals("s1"))
            taken.append(sum(redis.memory_usage(key, samples=0) or 0 for key in keys))
            assert int(redis.hget(store.keys.session("s1"), "originals")) <= 10 * ORIGINAL_BYTES
    assert max(taken) < 16 * ORIGINAL_BYTES
    assert taken[1] < 1.1 * taken[0]


def test_keeping_an_original_never_shortens_what_a_dead_letter_holds(on_server, redis):
    """A dead letter keeps its session for 90 days: a late result and an operator's compaction do not make it 7."""
    store = on_server.store
    claim = compacted(on_server, talk(on_server, turns=2))
    store.put_result("s1", "res-1", body())
    assert store.finish(claim, ending_of(claim, JobStatus.DEAD_LETTERED), trace_of(claim, "dead_letter"))
    store.put_result("s1", "res-2", body())
    work = began(on_server, claim.ref.compaction(), "c-late")
    group = min(message.group for message in work.messages if message.group > 1)
    assert store.commit_compaction(work, without_group(work, group))
    for key in (store.keys.archive, store.keys.results, store.keys.originals, store.keys.memory):
        assert KEPT_S < redis.ttl(key("s1")) <= HELD_S, key


def test_for_a_session_that_is_not_there_nothing_is_kept(on_server, redis):
    """It was forgotten, or expired, while the tool ran: a key that nobody could find, or that never expires, is not made."""
    on_server.store.put_result("s-gone", "res-1", body())
    assert on_server.store.get_result("s-gone", "res-1") is None
    assert redis.exists(on_server.store.keys.session("s-gone")) == 0
