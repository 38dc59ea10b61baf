"""The keys of a waiting job do not expire: they are renewed, or a worker claims the step before."""

from __future__ import annotations

import pytest
import redis as redis_py

from midwatch.orchestration.keyspace import KEPT_S, partition
from midwatch.schemas.job import JobStatus
from tests.contract.store_bench import not_now, redis_bench, trace_of
from tests.properties.two_servers import new_job

DAY_S = 86_400
MONTH_MS = 31 * DAY_S * 1_000


def test_a_job_queued_behind_a_letter_keeps_its_keys(redis: redis_py.Redis, prefix: str) -> None:
    """The letter waits for a human for weeks. The job behind it is still there when the letter is replayed or discarded."""
    bench = redis_bench(redis, prefix)
    bench.to_dead_letter()
    bench.store.enqueue(new_job("job-2", "s1"))
    keys = [bench.keys.job("s1", "job-2"), bench.keys.waiting("s1")]
    for key in keys:
        assert redis.expire(key, 3_600), key
    bench.operations.records.look()
    for key in keys:
        assert redis.ttl(key) > KEPT_S - DAY_S, key
    assert bench.operations.job("job-2").status is JobStatus.QUEUED
    assert bench.operations.discard("job-1")
    assert bench.operations.job("job-2").status is JobStatus.QUEUED
    assert bench.sweep(patience_ms=0) == ["job-2/1"]


def test_a_long_life_is_not_shortened(redis: redis_py.Redis, prefix: str) -> None:
    """The session of a letter is kept for ninety days."""
    bench = redis_bench(redis, prefix)
    bench.to_dead_letter()
    bench.store.enqueue(new_job("job-2", "s1"))
    before = redis.ttl(bench.keys.session("s1"))
    redis.expire(bench.keys.job("s1", "job-2"), 3_600)
    bench.operations.records.look()
    assert redis.ttl(bench.keys.session("s1")) >= before - 5


@pytest.mark.parametrize("after_ms", [MONTH_MS, 3_600_000_000, 10**13])
def test_a_deferred_step_is_looked_at_before_its_keys_expire(redis: redis_py.Redis, prefix: str, after_ms: int) -> None:
    """A `Retry-After` of 3600000 is 41 days. The claim at the look renews the keys, or the job ends as a letter."""
    bench = redis_bench(redis, prefix)
    claim = bench.begin()
    deferral = not_now().model_copy(update={"after_ms": after_ms})
    assert bench.store.defer(claim, deferral, trace_of(claim, "defer"))
    due = bench.keys.index(partition("s1"), "due")
    ((_, at_ms),) = redis.zrange(due, 0, -1, withscores=True)
    life_ms = 1_000 * redis.ttl(bench.keys.job("s1", "job-1"))
    assert at_ms - claim.now_ms < life_ms
