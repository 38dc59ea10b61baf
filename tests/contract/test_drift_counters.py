"""Drift counters on a real Redis and on the one in this process, and a breaker that reads another worker's counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from midwatch.orchestration.drift.breaker import DriftBreaker
from midwatch.orchestration.drift.counts import call_field, drift_rows, invalid_field
from midwatch.orchestration.protocol.store_replies import TurnCommitted
from midwatch.schemas.job import JobStatus
from tests.contract.store_bench import Bench, ending_of, in_process_bench, redis_bench, trace_of, turn_of

MODEL = "openai:gpt-5-2025-08-07"
CALLED, REFUSED = call_field(MODEL, "book", 60_000), invalid_field(MODEL, "book", 60_000, "schema")


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "in_process":
        return in_process_bench()
    return redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"))


def counted(bench: Bench) -> dict[str, int]:
    """Return the counters by name, of this hour and the previous one."""
    found: dict[str, int] = {}
    for (_, name), count in bench.store.drift_counters(2).items():
        found[name] = found.get(name, 0) + count
    return found


def test_a_turn_that_goes_on_and_one_that_ends_the_job_are_counted(bench):
    """Each turn is counted once, even if a lost reply makes the worker commit it again."""
    claim = bench.begin()
    commit = replace(turn_of(claim), drift=(CALLED, CALLED, REFUSED))
    assert bench.store.commit_turn(claim, commit) is TurnCommitted.COMMITTED
    assert bench.store.commit_turn(claim, commit) is TurnCommitted.COMMITTED
    last = bench.claim(claim.ref.model_turn(2))
    ending = replace(ending_of(last, JobStatus.DEAD_LETTERED), drift=(CALLED, REFUSED))
    assert bench.store.finish(last, ending, trace_of(last, "dead_letter"))
    assert not bench.store.finish(last, ending, trace_of(last, "dead_letter"))
    assert counted(bench) == {CALLED: 3, REFUSED: 2}
    (row,) = drift_rows(counted(bench).items())
    assert (row.calls, row.invalid, row.band) == (3, 2, "50k-100k")


def test_a_turn_whose_lease_is_lost_counts_nothing(bench):
    """The turn is counted by the next worker with the lease."""
    claim = bench.begin()
    assert bench.store.commit_turn(replace(claim, fence=claim.fence - 1), turn_of(claim)) is TurnCommitted.LOST
    assert counted(bench) == {}


def test_a_breaker_sees_the_counts_of_other_workers(bench):
    """Twenty refused calls of another worker open the breaker. Their sessions are in several partitions."""
    claim = bench.begin()
    commit = replace(turn_of(claim), drift=(CALLED,) * 20 + (REFUSED,) * 20)
    assert bench.store.commit_turn(claim, commit) is TurnCommitted.COMMITTED
    elsewhere = DriftBreaker(bench.store.drift_counters, lambda: 0)
    assert elsewhere.open_tools(MODEL) == {"book"}
