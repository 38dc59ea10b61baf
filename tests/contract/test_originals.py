"""What a store promises of originals, which are archived groups and whole results.

They can be read back, the oldest are deleted above a bound, and each lives exactly as long as its session. Most tests run on
both Redis servers, the last ones on a real server only.
"""

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
from tests.contract.test_compaction import begin_compaction, claim_again, run_turn, run_turns, without_group
from tests.unit.claims import tool_call

ORIGINAL_BYTES = 1_000


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """Make a store that keeps at most ten originals, of a thousand bytes each, for a session."""
    if request.param == "in_process":
        bench = in_process_bench()
    else:
        bench = redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"))
    bench.store.originals_bytes = 10 * ORIGINAL_BYTES
    return bench


def body() -> bytes:
    """Make an original."""
    return os.urandom(ORIGINAL_BYTES)


def memory_through(group: int) -> Memory:
    """Make a memory of all groups up to this one."""
    return Memory(through_group=group, compactions=1)


def compact(bench: Bench, claim: Claim) -> Claim:
    """Run one more turn and archive the oldest group. Return the next claim."""
    claim = run_turn(bench, claim)
    nonce = f"c{claim.ref.turn}"
    work = begin_compaction(bench, claim.ref.compaction(), nonce)
    group = min(message.group for message in work.messages if message.group > 1)
    done = without_group(work, group, archived=((group, body()),))
    assert bench.store.commit_compaction(work, done)
    return claim_again(bench, claim)


def test_a_session_that_compacts_often_keeps_its_newest_originals(bench):
    """After forty compactions with a bound of ten originals, the newest ten groups can be read and the others are deleted."""
    claim = run_turns(bench, turns=1)
    for _ in range(40):
        claim = compact(bench, claim)
    kept = [group for group in range(2, 45) if bench.store.get_archived("s1", group) is not None]
    assert kept == list(range(32, 42))
    call = tool_call("recall", '{"group": 9}')
    assert "no longer kept" in answer_recall(bench.store, replace(claim, memory=memory_through(41)), call, 0).content
    assert "in your window" in answer_recall(bench.store, replace(claim, memory=memory_through(8)), call, 0).content


def test_results_and_groups_share_one_bound(bench):
    """A tool that returns megabytes in every turn is bounded without any compaction.

    The oldest originals go first, groups too.
    """
    claim = compact(bench, run_turns(bench, turns=1))
    for number in range(9):
        bench.store.put_result("s1", f"res-{number}", body())
    assert bench.store.get_archived("s1", 2) is not None
    bench.store.put_result("s1", "res-9", body())
    assert bench.store.get_archived("s1", 2) is None
    assert bench.store.get_result("s1", "res-0") is not None
    compact(bench, claim)
    assert bench.store.get_result("s1", "res-0") is None
    assert bench.store.get_result("s1", "res-1") is not None


def test_a_result_that_is_kept_again_is_counted_once(bench):
    """A retried step has the same handle, so its bytes count once."""
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
    """The model has just received its handle."""
    bench.begin()
    bench.store.put_result("s1", "res-small", body())
    bench.store.put_result("s1", "res-large", os.urandom(20 * ORIGINAL_BYTES))
    assert bench.store.get_result("s1", "res-small") is None
    assert bench.store.get_result("s1", "res-large") is not None


@pytest.fixture
def server_bench(redis: redis_client.Redis, prefix: str) -> Bench:
    """Make a bench with the same bound on a server, where memory and times to live can be read."""
    bench = redis_bench(redis, prefix)
    bench.store.originals_bytes = 10 * ORIGINAL_BYTES
    return bench


def test_a_sessions_memory_on_the_server_stays_bounded(server_bench, redis):
    """Originals take the same memory after 20 and after 60 compactions: the bound, and what the server adds to it."""
    store, claim = server_bench.store, run_turns(server_bench, turns=1)
    taken: list[int] = []
    for number in range(60):
        claim = compact(server_bench, claim)
        if number in (19, 59):
            keys = (store.keys.archive("s1"), store.keys.results("s1"), store.keys.originals("s1"))
            taken.append(sum(redis.memory_usage(key, samples=0) or 0 for key in keys))
            assert int(redis.hget(store.keys.session("s1"), "originals")) <= 10 * ORIGINAL_BYTES
    assert max(taken) < 16 * ORIGINAL_BYTES
    assert taken[1] < 1.1 * taken[0]


def test_a_new_original_does_not_shorten_a_dead_letters_life(server_bench, redis):
    """A dead letter keeps its session for 90 days. A late result or an operator's compaction does not make that 7 days."""
    store = server_bench.store
    claim = compact(server_bench, run_turns(server_bench, turns=2))
    store.put_result("s1", "res-1", body())
    assert store.finish(claim, ending_of(claim, JobStatus.DEAD_LETTERED), trace_of(claim, "dead_letter"))
    store.put_result("s1", "res-2", body())
    work = begin_compaction(server_bench, claim.ref.compaction(), "c-late")
    group = min(message.group for message in work.messages if message.group > 1)
    assert store.commit_compaction(work, without_group(work, group))
    for key in (store.keys.archive, store.keys.results, store.keys.originals, store.keys.memory):
        assert KEPT_S < redis.ttl(key("s1")) <= HELD_S, key


def test_an_original_of_a_missing_session_is_not_kept(server_bench, redis):
    """The session was deleted or expired while the tool ran. Its key could never be found, and would never expire."""
    server_bench.store.put_result("s-gone", "res-1", body())
    assert server_bench.store.get_result("s-gone", "res-1") is None
    assert redis.exists(server_bench.store.keys.session("s-gone")) == 0
