"""Replayed jobs in the lane below live work. Every test runs on a real Redis and on the Redis in this process."""

from __future__ import annotations

import pytest

from midwatch.orchestration.protocol.claims import ClaimRefusal
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import Priority, StepRef
from tests.contract.store_bench import (
    ASK,
    Bench,
    ending_of,
    in_process_bench,
    not_now,
    redis_bench,
    results_of,
    trace_of,
    turn_of,
)


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "in_process":
        return in_process_bench()
    return redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"))


def sent(bench: Bench) -> list[tuple[str, Priority]]:
    """The steps published since the last call, with their priorities."""
    refs = [(ref.step, ref.priority) for ref in bench.sent.refs]
    bench.sent.refs.clear()
    return refs


def entries(bench: Bench, name: str) -> list[str]:
    """The members of an index of the session's partition, without session and job."""
    key = bench.keys.session("s1").split(":session:")[0] + f":{name}"
    return sorted(member.decode().replace("|s1|job-1|", "|") for member in bench.client.zrange(key, 0, -1))


def bury(bench: Bench, ref: StepRef) -> None:
    """Make a dead letter of a step."""
    claim = bench.claim(ref)
    assert bench.store.finish(claim, ending_of(claim, JobStatus.DEAD_LETTERED), trace_of(claim, "dead_letter"))
    bench.sent.refs.clear()


def test_job_replayed_in_a_lane_keeps_it_for_later_steps(bench):
    """The replayed step, its calls and the next turn are all published below live work."""
    bench.to_dead_letter(priority=Priority.HIGH)
    sent(bench)
    assert bench.operations.replay("job-1", lane=Priority.REPLAY)
    assert sent(bench) == [("1", Priority.REPLAY)]
    assert entries(bench, "owed") == ["replay|1"]
    claim = bench.claim(StepRef(job_id="job-1", session_id="s1", step="1", priority=Priority.REPLAY))
    bench.store.commit_turn(claim, turn_of(claim, 1))
    assert sent(bench) == [("1.0", Priority.REPLAY)]
    call = bench.claim(claim.ref.call(0))
    bench.store.commit_results(call, results_of(call))
    assert sent(bench) == [("2", Priority.REPLAY)]
    assert bench.store.job("job-1").priority is Priority.REPLAY
    assert (entries(bench, "due"), entries(bench, "owed")) == ([], ["replay|2"])


def test_single_replay_returns_the_job_to_its_own_priority(bench):
    """After a failed bulk replay the job is still in the lane. A person who replays it alone wants it done soon."""
    bench.to_dead_letter(priority=Priority.HIGH)
    bench.operations.replay("job-1", lane=Priority.REPLAY)
    bury(bench, StepRef(job_id="job-1", session_id="s1", step="1", priority=Priority.REPLAY))
    assert bench.operations.replay("job-1")
    assert sent(bench) == [("1", Priority.HIGH)]
    assert bench.store.job("job-1").priority is Priority.HIGH


def test_message_older_than_the_replay_runs_in_the_lane(bench):
    """A queue may still hold a message with the old priority. Its claim leaves no second entry in due or owed."""
    _, calls = bench.to_calls(2)
    bury(bench, calls[0])
    bench.operations.replay("job-1", lane=Priority.REPLAY)
    claim = bench.claim(calls[1])
    assert claim.ref.priority is Priority.REPLAY
    assert (entries(bench, "due"), entries(bench, "owed")) == (["replay|1.1"], ["replay|1.0"])
    bench.store.defer(claim, not_now(), trace_of(claim, "defer"))
    assert bench.take(calls[1]) is ClaimRefusal.EARLY
    assert (entries(bench, "due"), entries(bench, "owed")) == (["replay|1.1"], ["replay|1.0"])


def test_sibling_that_runs_during_the_replay_moves_to_the_lane(bench):
    """Its lease holds. If its worker dies, the steward publishes it in the lane."""
    _, calls = bench.to_calls(2)
    running = bench.claim(calls[1])
    bury(bench, calls[0])
    bench.operations.replay("job-1", lane=Priority.REPLAY)
    assert (entries(bench, "due"), entries(bench, "owed")) == (["replay|1.1"], ["replay|1.0"])
    assert bench.store.commit_results(running, results_of(running))
    assert bench.claim(calls[0]).ref.priority is Priority.REPLAY


def test_parked_call_of_a_job_in_the_lane_is_decided(bench):
    """The decision finds the step, and publishes it in the lane."""
    _, calls = bench.to_calls(2)
    parked = bench.claim(calls[1])
    assert bench.store.park(parked, ASK, trace_of(parked, "park"))
    bury(bench, calls[0])
    bench.operations.replay("job-1", lane=Priority.REPLAY)
    sent(bench)
    assert bench.operations.decide("job-1", approve=True)
    assert sent(bench) == [("1.1", Priority.REPLAY)]


def test_job_in_the_lane_is_cancelled(bench):
    """The cancellation finds its steps. Nothing of the job stays in due or owed."""
    bench.to_dead_letter()
    bench.operations.replay("job-1", lane=Priority.REPLAY)
    sent(bench)
    assert bench.operations.cancel("job-1")
    ((step, priority),) = sent(bench)
    assert priority is Priority.REPLAY
    claim = bench.claim(StepRef(job_id="job-1", session_id="s1", step=step, priority=priority))
    assert claim.ending == "cancelled"
    bench.store.finish(claim, ending_of(claim, JobStatus.CANCELLED), trace_of(claim, "cancelled"))
    assert (entries(bench, "due"), entries(bench, "owed")) == ([], [])


def test_redrives_count_up_and_a_human_replay_counts_from_zero(bench):
    """The bound on redrives is for letters that no human looked at."""
    bench.to_dead_letter()
    ref = StepRef(job_id="job-1", session_id="s1", step="1", priority=Priority.REPLAY)
    for redrives in (1, 2):
        assert bench.operations.replay("job-1", lane=Priority.REPLAY, redriven=True)
        assert bench.store.job("job-1").redrives == redrives
        bury(bench, ref)
    assert bench.operations.counters()["letters.redriven"] == 2
    assert bench.operations.replay("job-1")
    assert bench.store.job("job-1").redrives == 0
