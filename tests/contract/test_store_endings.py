"""How jobs end, and what operators do to them. Every test runs on a real Redis and on the Redis in this process."""

from __future__ import annotations

import pytest

from midwatch.orchestration.errors import NotFound, Refused, SessionBusy
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.store_replies import LeaseState, TurnCommitted
from midwatch.schemas.job import JobStatus, Parent, SessionPolicy
from midwatch.schemas.message import ToolMessage
from midwatch.schemas.step import StepRef
from tests.contract.store_bench import (
    ASK,
    FAILURE,
    Bench,
    ending_of,
    in_process_bench,
    not_now,
    redis_bench,
    results_of,
    trace_of,
    turn_of,
)
from tests.properties.two_servers import new_job


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "in_process":
        return in_process_bench()
    return redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"))


def finish(bench, claim, status=JobStatus.COMPLETED):
    """Finish a claimed step, and with it the job."""
    assert bench.store.finish(claim, ending_of(claim, status), trace_of(claim, status.value))


def results(bench):
    """Return the results in the conversation, as (ordinal, content, is_error)."""
    found = [message for message in bench.operations.messages("s1") if isinstance(message, ToolMessage)]
    return [(message.ordinal, message.content, message.is_error) for message in found]


# --- endings


def test_a_completed_job_has_its_output_and_no_step_left(bench):
    """The last message is in the conversation and the usage is counted. A late message finds nothing to do."""
    claim = bench.begin()
    finish(bench, claim)
    job = bench.store.job("job-1")
    assert (job.status, job.output, job.usage.output_tokens, job.failure) == (JobStatus.COMPLETED, "done", 1, None)
    assert job.finished_ms >= job.started_ms
    assert [message.role for message in bench.operations.messages("s1")] == ["user", "assistant"]
    assert bench.take(claim.ref) is ClaimRefusal.GONE
    assert bench.sweep(patience_ms=0) == []
    assert [record.outcome for record in bench.store.trace(claim.ref)] == ["completed"]


def test_open_calls_are_answered_when_a_job_ends(bench):
    """Every provider refuses a conversation in which a call has no result, and the session must go on."""
    _, calls = bench.to_calls(3)
    done = bench.claim(calls[1])
    bench.store.commit_results(done, results_of(done))
    running = bench.claim(calls[2])
    bench.operations.cancel("job-1")
    finish(bench, bench.claim(calls[0]), JobStatus.CANCELLED)
    assert results(bench) == [(0, "ended", True), (1, "result 1.1", False), (2, "ended", True)]
    assert bench.store.commit_results(running, results_of(running)) is False
    assert bench.store.job("job-1").open_calls == 0
    assert bench.sweep(patience_ms=0) == []


def test_a_parent_is_woken_when_its_child_ends(bench):
    """The parent then need not wait for its next poll."""
    parent = Parent(ref=StepRef(job_id="up", session_id="su", step="2.0"), root_id="up", depth=1)
    claim = bench.begin(parent=parent)
    bench.published()
    finish(bench, claim)
    assert bench.published() == ["up/2.0"]


# --- one job of a session at a time


def test_jobs_of_a_session_run_one_after_the_other_in_order(bench):
    """The next job begins when the previous one has ended, and continues its conversation."""
    first = bench.begin("job-1")
    for number in (2, 3):
        assert bench.store.enqueue(new_job(f"job-{number}", "s1"))
    assert bench.published() == ["job-1/1"]
    assert bench.take(new_job("job-2", "s1").ref) is ClaimRefusal.NOT_YET
    finish(bench, first)
    assert bench.published() == ["job-2/1"]
    assert bench.take(new_job("job-3", "s1").ref) is ClaimRefusal.NOT_YET
    second = bench.claim(new_job("job-2", "s1").ref)
    assert [message.role for message in second.log] == ["user", "assistant", "user"]
    assert [message.group for message in second.log] == [1, 2, 3]
    finish(bench, second)
    assert bench.published() == ["job-3/1"]


def test_sessions_do_not_wait_for_each_other(bench):
    """Jobs of two sessions run at the same time."""
    claims = [bench.begin("job-1", "s1"), bench.begin("job-2", "s2")]
    assert [claim.job.status for claim in claims] == [JobStatus.RUNNING, JobStatus.RUNNING]


def test_a_busy_session_can_reject_a_job(bench):
    """The producer gets an error, and no job is stored."""
    bench.begin("job-1")
    with pytest.raises(SessionBusy, match="job-1"):
        bench.store.enqueue(new_job("job-2", "s1", on_busy=SessionPolicy.REJECT))
    with pytest.raises(NotFound):
        bench.store.job("job-2")


def test_a_job_can_interrupt_the_current_job(bench):
    """The new job is first in line, and its producer gets the id of the job that must be cancelled."""
    first = bench.begin("job-1")
    bench.store.enqueue(new_job("job-2", "s1"))
    told = []
    bench.store.enqueue(new_job("job-3", "s1", on_busy=SessionPolicy.INTERRUPT), on_interrupt=told.append)
    assert told == ["job-1"]
    bench.published()
    finish(bench, first, JobStatus.CANCELLED)
    assert bench.published() == ["job-3/1"]


# --- cancel


def test_a_queued_job_is_cancelled_at_once(bench):
    """A cancelled job that has not begun never begins, even if it was the session's active one. The next job begins."""
    bench.store.enqueue(new_job("job-1", "s1"))
    bench.store.enqueue(new_job("job-2", "s1"))
    bench.store.enqueue(new_job("job-3", "s1"))
    bench.published()
    assert bench.operations.cancel("job-2") is True
    assert bench.published() == []
    assert bench.operations.cancel("job-1") is True
    assert bench.published() == ["job-3/1"]
    assert bench.operations.cancel("job-1") is False
    assert bench.store.job("job-1").status is JobStatus.CANCELLED
    assert bench.take(new_job("job-1", "s1").ref) is ClaimRefusal.GONE


def test_a_cancelled_job_starts_nothing_new(bench):
    """Waiting steps are published at once, and each claim may only end the job. Results of running calls are kept."""
    _, calls = bench.to_calls(3)
    running = bench.claim(calls[0])
    deferred = bench.claim(calls[1])
    bench.store.defer(deferred, not_now(), trace_of(deferred, "defer"))
    bench.published()
    assert bench.operations.cancel("job-1") is True
    assert bench.published() == ["job-1/1.1", "job-1/1.2"]
    assert bench.store.commit_results(running, results_of(running)) is True
    ending = bench.claim(calls[1])
    assert ending.ending == "cancelled"
    finish(bench, ending, JobStatus.CANCELLED)
    assert results(bench) == [(0, "result 1.0", False), (1, "ended", True), (2, "ended", True)]
    assert bench.take(calls[2]) is ClaimRefusal.GONE


def test_a_parked_job_can_be_cancelled(bench):
    """The job ends without a decision. A later decision is refused or changes nothing."""
    _, (call,) = bench.to_calls(1)
    claim = bench.claim(call)
    bench.store.park(claim, ASK, trace_of(claim, "park"))
    bench.operations.cancel("job-1")
    ending = bench.claim(call)
    assert ending.ending == "cancelled"
    finish(bench, ending, JobStatus.CANCELLED)
    with pytest.raises(Refused, match="cancelled"):
        bench.operations.decide("job-1", "1.0", approve=True)


def test_the_inline_calls_of_a_cancelled_jobs_turn_do_not_run(bench):
    """The turn's commit returns CANCELLED: the model's message is kept, but its tools must not be run."""
    claim = bench.begin()
    bench.operations.cancel("job-1")
    assert bench.store.commit_turn(claim, turn_of(claim, 2, inline=2)) is TurnCommitted.CANCELLED


def test_a_dead_letter_of_a_cancelled_job_becomes_a_cancelled_job(bench):
    """The person who cancelled the job wants the session back. A dead letter would hold it."""
    claim = bench.begin()
    bench.store.enqueue(new_job("job-2", "s1"))
    bench.operations.cancel("job-1")
    bench.published()
    assert bench.store.finish(claim, ending_of(claim, JobStatus.DEAD_LETTERED), trace_of(claim, "dead_letter"))
    assert bench.store.job("job-1").status is JobStatus.CANCELLED
    assert bench.published() == ["job-2/1"]
    assert bench.operations.dead_letters() == []


# --- dead letters


def test_a_dead_letter_is_kept_and_holds_its_session(bench):
    """Everything that a replay needs stays in place, so the next job of the session must wait."""
    claim = bench.to_dead_letter()
    bench.store.enqueue(new_job("job-2", "s1"))
    assert bench.take(new_job("job-2", "s1").ref) is ClaimRefusal.NOT_YET
    letter = bench.operations.dead_letter("job-1")
    assert (letter.step, letter.failure) == ("1", FAILURE)
    assert bench.operations.dead_letters() == [letter]
    assert bench.take(claim.ref) is ClaimRefusal.GONE
    assert bench.store.job("job-1").failure == FAILURE


def test_cancelling_a_dead_letter_gives_it_up(bench):
    """The person who cancels a dead letter wants the session back, so the next job begins."""
    bench.to_dead_letter()
    bench.store.enqueue(new_job("job-2", "s1"))
    assert bench.operations.cancel("job-1") is True
    assert isinstance(bench.take(new_job("job-2", "s1").ref), Claim)
    assert bench.operations.dead_letters() == []


def test_a_replay_resumes_at_the_failed_step(bench):
    """Attempts and ceilings start at zero again. A second replay does nothing."""
    _, calls = bench.to_calls(2, max_steps=1)
    done = bench.claim(calls[0])
    bench.store.commit_results(done, results_of(done))
    dead = bench.claim(calls[1])
    bench.store.defer(dead, not_now(counts=True), trace_of(dead, "defer"))
    bench.expire(calls[1])
    finish(bench, bench.claim(calls[1]), JobStatus.DEAD_LETTERED)
    bench.outlive("job-1")
    bench.published()
    assert bench.operations.replay("job-1", max_steps=5) is True
    assert bench.published() == ["job-1/1.1"]
    assert bench.operations.replay("job-1", max_steps=5) is False
    assert bench.operations.dead_letters() == []
    again = bench.claim(calls[1])
    assert (again.attempt, again.ending, again.interrupted) == (0, "", False)
    job = bench.store.job("job-1")
    assert (job.status, job.max_steps, job.failure, job.finished_ms) == (JobStatus.RUNNING, 6, None, None)
    bench.store.commit_results(again, results_of(again))
    assert bench.claim(calls[0].model_turn(2)).ending == ""


def test_a_replay_does_not_disturb_a_running_sibling(bench):
    """The sibling's result is still accepted. If its worker dies now, its step is found again."""
    _, calls = bench.to_calls(2)
    alive = bench.claim(calls[0])
    finish(bench, bench.claim(calls[1]), JobStatus.DEAD_LETTERED)
    assert bench.take(calls[0]) is ClaimRefusal.GONE, "a message for a dead job finds nothing to do"
    bench.operations.replay("job-1")
    assert bench.take(calls[0]) is ClaimRefusal.BUSY
    bench.expire(calls[0])
    assert "job-1/1.0" in bench.sweep(), "the worker died, and no steward publishes its step again"
    assert bench.store.commit_results(alive, results_of(alive)) is True


def test_a_replay_publishes_siblings_that_waited(bench):
    """Deferred calls and calls that wait for a child may have become due while the job was dead."""
    _, calls = bench.to_calls(3)
    deferred, waiting = bench.claim(calls[0]), bench.claim(calls[1])
    bench.store.defer(deferred, not_now(), trace_of(deferred, "defer"))
    bench.wait_for_child(waiting)
    finish(bench, bench.claim(calls[2]), JobStatus.DEAD_LETTERED)
    for ref in calls[:2]:
        bench.expire(ref)
        bench.sweep()
        assert bench.take(ref) is ClaimRefusal.GONE
    bench.published()
    bench.operations.replay("job-1")
    assert bench.published() == ["job-1/1.0", "job-1/1.1", "job-1/1.2"]


def test_a_replayed_job_that_had_a_parked_call_is_parked_again(bench):
    """The job also shows again what it waits for."""
    _, calls = bench.to_calls(2)
    parked = bench.claim(calls[0])
    bench.store.park(parked, ASK, trace_of(parked, "park"))
    finish(bench, bench.claim(calls[1]), JobStatus.DEAD_LETTERED)
    assert bench.store.job("job-1").waiting is None
    bench.operations.replay("job-1")
    job = bench.store.job("job-1")
    assert (job.status, job.waiting.step) == (JobStatus.PARKED, "1.0")
    assert bench.operations.decide("job-1", approve=True) is True


def test_siblings_of_a_dead_letter_do_not_revive_the_job(bench):
    """One sibling is parked and one fails too. The job stays dead and is counted once, and the replay finds all three steps."""
    _, calls = bench.to_calls(3)
    parking, dying, first = (bench.claim(ref) for ref in calls)
    finish(bench, first, JobStatus.DEAD_LETTERED)
    assert bench.store.park(parking, ASK, trace_of(parking, "park"))
    finish(bench, dying, JobStatus.DEAD_LETTERED)
    assert bench.store.job("job-1").status is JobStatus.DEAD_LETTERED
    assert len(bench.operations.dead_letters()) == 1
    bench.published()
    bench.operations.replay("job-1")
    assert bench.published() == ["job-1/1.1", "job-1/1.2"]
    assert bench.operations.decide("job-1", "1.0", approve=True) is True


def test_a_cancellation_also_removes_a_dead_letter(bench):
    """Two steps end the job. After the cancellation no step is left to replay."""
    _, calls = bench.to_calls(2)
    dying, late = bench.claim(calls[0]), bench.claim(calls[1])
    finish(bench, dying, JobStatus.DEAD_LETTERED)
    finish(bench, late, JobStatus.CANCELLED)
    assert bench.store.job("job-1").status is JobStatus.CANCELLED
    assert bench.operations.dead_letters() == []


def test_a_renewed_lease_is_not_published_again(bench):
    """A steward had found the lease expired, but the worker was only late. After the renewal, stewards leave the step alone."""
    claim = bench.begin()
    bench.expire(claim.ref)
    assert bench.sweep() == ["job-1/1"]
    assert bench.store.renew(claim) is LeaseState.HELD
    assert bench.sweep(patience_ms=0) == []


def test_a_discarded_dead_letter_frees_its_session(bench):
    """The job's open calls are answered and the next job begins. The letter can't be replayed any more."""
    _, (call,) = bench.to_calls(1)
    finish(bench, bench.claim(call), JobStatus.DEAD_LETTERED)
    bench.store.enqueue(new_job("job-2", "s1"))
    bench.published()
    assert bench.operations.discard("job-1") is True
    assert bench.published() == ["job-2/1"]
    assert [(ordinal, is_error) for ordinal, _, is_error in results(bench)] == [(0, True)]
    assert bench.operations.discard("job-1") is False
    assert bench.operations.replay("job-1") is False
    assert bench.store.job("job-1").status is JobStatus.DEAD_LETTERED
    with pytest.raises(NotFound, match="no dead letter"):
        bench.operations.dead_letter("job-1")


def test_only_a_dead_job_is_replayed_or_discarded(bench):
    """A running job is left unchanged."""
    bench.begin()
    assert bench.operations.replay("job-1") is False
    assert bench.operations.discard("job-1") is False
    with pytest.raises(Refused, match="running"):
        bench.operations.decide("job-1", approve=True)
