"""What a store promises a step.

Every test runs on a real Redis and on the Redis in this process. A new store must pass all of them.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from midwatch.orchestration.errors import NotFound, Refused
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.store_replies import ChildWait, LeaseState, TurnCommitted
from midwatch.schemas.decision import HumanDecision, ParkReason, Verdict
from midwatch.schemas.job import JobStatus, Parent
from midwatch.schemas.lineage import Bounds
from midwatch.schemas.message import ToolMessage, UserMessage
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Park, StepRef
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
from tests.properties.contents import HOUR_MS
from tests.properties.two_servers import new_job


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "in_process":
        return in_process_bench()
    return redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"))


def contents(claim: Claim) -> list[str]:
    """Return the results in the conversation of a claim."""
    return [message.content for message in claim.log if isinstance(message, ToolMessage)]


# --- enqueue


def test_a_job_begins_queued_and_its_first_step_is_published(bench):
    """The stored job equals the enqueued one, field by field, and its first step is published."""
    parent = Parent(ref=StepRef(job_id="up", session_id="su", step="2.0"), root_id="root", depth=2)
    job = new_job("job-1", "s1", tenant="acme", priority="high", parent=parent, traceparent="00-1-2-01", max_steps=7)
    assert bench.store.enqueue(job) is True
    found = bench.store.job("job-1")
    assert (found.status, found.agent, found.agent_version, found.max_steps) == (JobStatus.QUEUED, "clerk", "v1", 7)
    assert (found.tenant, found.priority, found.root_id, found.depth) == ("acme", "high", "root", 2)
    assert (found.parent, found.traceparent) == (parent.ref, "00-1-2-01")
    assert found.created_ms > 1_700_000_000_000
    assert found.started_ms is None
    assert bench.published() == ["job-1/1"]


def test_the_same_id_twice_is_one_job(bench):
    """One id never becomes two jobs, even if the second job names another session."""
    assert bench.store.enqueue(new_job("job-1", "s1"))
    assert bench.store.enqueue(new_job("job-1", "s1", input="other")) is False
    assert bench.store.enqueue(new_job("job-1", "s2")) is False
    assert bench.store.job("job-1").session_id == "s1"
    assert bench.published() == ["job-1/1"]


def test_an_unknown_job_is_not_found_and_not_run(bench):
    """Reading it raises an error, and a message for it finds nothing to do."""
    with pytest.raises(NotFound, match="job-9"):
        bench.store.job("job-9")
    assert bench.take(StepRef(job_id="job-9", session_id="s1", step="1")) is ClaimRefusal.GONE


# --- claim


def test_a_claim_contains_everything_the_step_needs(bench):
    """A claim contains the job's state, the conversation so far, the group of the new messages, and the server's time."""
    claim = bench.begin(input='say "grüß" \\ \n\u2028 to the user')
    assert [type(message) for message in claim.log] == [UserMessage]
    assert claim.log[0].text == 'say "grüß" \\ \n\u2028 to the user'
    assert (claim.log[0].group, claim.group) == (1, 2)
    assert (claim.attempt, claim.losses, claim.interrupted, claim.ending, claim.call) == (0, 0, False, "", None)
    assert (claim.job.status, claim.job.turn, claim.job.started_ms) == (JobStatus.RUNNING, 1, claim.now_ms)
    assert claim.job.deadline_ms == claim.now_ms + HOUR_MS
    assert claim.log_weight > 10


def test_a_step_has_one_runner_at_a_time(bench):
    """While a lease is valid, every other worker gets the answer that the step is busy."""
    claim = bench.begin()
    assert bench.take(claim.ref) is ClaimRefusal.BUSY


def test_a_claim_with_a_lost_reply_is_given_again(bench):
    """The same nonce gets the same fence, however often it asks. A lost reply therefore costs no attempt."""
    claim = bench.begin()
    again = bench.store.claim(claim.ref, claim.nonce)
    assert (again.fence, again.interrupted, again.losses) == (claim.fence, False, 0)
    assert bench.store.commit_turn(claim, turn_of(claim)) is TurnCommitted.COMMITTED


def test_a_step_is_taken_over_after_its_worker_vanished(bench):
    """When the lease has expired, the next claim has a new fence and says that the step had begun."""
    claim = bench.begin()
    bench.expire(claim.ref)
    taken = bench.claim(claim.ref)
    assert taken.fence > claim.fence
    assert (taken.interrupted, taken.losses) == (True, 1)


def test_a_message_for_a_finished_step_finds_nothing_to_do(bench):
    """A late or repeated message costs one round trip and publishes nothing."""
    claim, calls = bench.to_calls(1)
    assert bench.take(claim.ref) is ClaimRefusal.GONE
    call = bench.claim(calls[0])
    assert bench.store.commit_results(call, results_of(call))
    assert bench.take(calls[0]) is ClaimRefusal.GONE


# --- the fence


def test_a_worker_that_lost_its_step_commits_nothing(bench):
    """After a take-over, every write of the previous worker is refused and changes nothing."""
    old = bench.begin()
    bench.expire(old.ref)
    new = bench.claim(old.ref)
    assert bench.store.commit_turn(old, turn_of(old, 2)) is TurnCommitted.LOST
    assert bench.store.defer(old, not_now(), trace_of(old)) is False
    assert bench.store.park(old, ASK, trace_of(old)) is False
    assert bench.wait_for_child(old) is ChildWait.LOST
    assert bench.store.finish(old, ending_of(old, JobStatus.COMPLETED), trace_of(old)) is False
    assert bench.store.renew(old) is LeaseState.LOST
    bench.store.set_limits(old, agent_version="v9", max_steps=1, timeout_ms=1, bounds=Bounds())
    assert bench.store.trace(old.ref) == []
    assert bench.store.job("job-1").agent_version == "v1"
    assert len(bench.operations.messages("s1")) == 1
    assert bench.store.commit_turn(new, turn_of(new)) is TurnCommitted.COMMITTED


def test_a_settlement_with_a_commit_is_sent_once_in_every_case(bench):
    """The coordinator must get the call's result, whether the commit counts or not."""
    claim, sent = bench.begin(), []
    late = replace(claim, fence=claim.fence - 1)
    assert bench.store.commit_turn(late, turn_of(late), lambda: sent.append("late turn")) is TurnCommitted.LOST
    assert (
        bench.store.finish(late, ending_of(late, JobStatus.COMPLETED), trace_of(late), lambda: sent.append("late end"))
        is False
    )
    assert bench.store.commit_turn(claim, turn_of(claim, 1), lambda: sent.append("turn")) is TurnCommitted.COMMITTED
    call = bench.claim(claim.ref.call(0))
    assert bench.store.commit_results(call, results_of(call), lambda: sent.append("result")) is True
    assert bench.store.commit_results(call, results_of(call), lambda: sent.append("again")) is False
    assert sent == ["late turn", "late end", "turn", "result", "again"]


def test_a_commit_is_made_once(bench):
    """A second commit, after a lost reply, changes nothing. The worker still owns the inline calls that it started."""
    claim = bench.begin()
    assert bench.store.commit_turn(claim, turn_of(claim)) is TurnCommitted.COMMITTED
    assert bench.store.commit_turn(claim, turn_of(claim)) is TurnCommitted.COMMITTED
    assert len(bench.store.trace(claim.ref)) == 1
    assert bench.store.commit_turn(replace(claim, fence=claim.fence + 1), turn_of(claim)) is TurnCommitted.LOST


def test_a_lease_is_prolonged_while_it_is_held(bench):
    """HELD while this worker has the step, CANCELLED if the job was cancelled, LOST if the step is over or another worker's."""
    claim = bench.begin()
    bench.expire(claim.ref)
    assert bench.store.renew(claim) is LeaseState.HELD
    assert bench.take(claim.ref) is ClaimRefusal.BUSY
    bench.operations.cancel("job-1")
    assert bench.store.renew(claim) is LeaseState.CANCELLED
    bench.store.finish(claim, ending_of(claim, JobStatus.CANCELLED), trace_of(claim))
    assert bench.store.renew(claim) is LeaseState.LOST


# --- a turn and its calls


def test_a_turn_without_calls_publishes_the_next_turn(bench):
    """The model is called again, with the first turn's answer in the window."""
    claim = bench.begin()
    assert bench.store.commit_turn(claim, turn_of(claim)) is TurnCommitted.COMMITTED
    assert bench.published() == ["job-1/1", "job-1/2"]
    following = bench.claim(claim.ref.model_turn(2))
    assert [message.role for message in following.log] == ["user", "assistant"]
    assert (following.group, following.job.turn) == (3, 2)


def test_the_last_result_publishes_the_next_turn(bench):
    """Calls may finish in any order. Their results are sent in the order of the calls."""
    _, calls = bench.to_calls(3)
    assert bench.published() == ["job-1/1", "job-1/1.0", "job-1/1.1", "job-1/1.2"]
    assert bench.store.job("job-1").open_calls == 3
    for ref in (calls[2], calls[0], calls[1]):
        assert "job-1/2" not in bench.published()
        claim = bench.claim(ref)
        assert (claim.call.name, claim.group, claim.log) == (f"tool_{ref.ordinal}", 2, ())
        assert bench.store.commit_results(claim, results_of(claim))
    assert bench.published() == ["job-1/2"]
    assert contents(bench.claim(calls[0].model_turn(2))) == ["result 1.0", "result 1.1", "result 1.2"]
    assert bench.store.job("job-1").open_calls == 0


def test_a_call_gets_one_result(bench):
    """A second result, or one with an old fence, is refused: a result that the model has read never changes."""
    _, calls = bench.to_calls(2)
    old = bench.claim(calls[0])
    bench.expire(calls[0])
    new = bench.claim(calls[0])
    assert bench.store.commit_results(old, results_of(old, said="stale")) is False
    assert bench.store.commit_results(new, results_of(new)) is True
    assert bench.store.commit_results(new, results_of(new, said="again")) is False
    assert bench.store.job("job-1").open_calls == 1


def test_inline_calls_are_started_by_the_turns_commit(bench):
    """While the lease is valid, no other worker can take them. Their results are committed under the turn's own claim."""
    claim, calls = bench.to_calls(3, inline=2)
    assert bench.published() == ["job-1/1", "job-1/1.2"]
    assert bench.take(calls[0]) is ClaimRefusal.BUSY
    assert bench.store.commit_results(claim, results_of(claim, *calls[:2])) is True
    last = bench.claim(calls[2])
    assert bench.store.commit_results(last, results_of(last)) is True
    assert contents(bench.claim(claim.ref.model_turn(2))) == ["result 1.0", "result 1.1", "result 1.2"]


def test_only_the_inline_call_of_a_vanished_worker_is_taken_over(bench):
    """The other inline calls are committed. The call that another worker has taken over is left to that worker."""
    claim, calls = bench.to_calls(2, inline=2)
    bench.expire(calls[0])
    taken = bench.claim(calls[0])
    assert taken.interrupted
    assert bench.store.commit_results(claim, results_of(claim, *calls)) is False
    assert bench.store.job("job-1").open_calls == 1
    assert bench.store.commit_results(taken, results_of(taken, said="other")) is True
    assert contents(bench.claim(claim.ref.model_turn(2))) == ["other 1.0", "result 1.1"]


def test_an_inline_call_renews_its_lease_by_its_own_address(bench):
    """The turn's row is deleted by its commit. A renewal of the turn is therefore refused, and one of the call is not."""
    claim, calls = bench.to_calls(1, inline=1)
    inline = Claim(**{**vars(claim), "ref": calls[0]})
    assert bench.store.renew(claim) is LeaseState.LOST
    bench.expire(calls[0])
    assert bench.store.renew(inline) is LeaseState.HELD
    assert bench.take(calls[0]) is ClaimRefusal.BUSY


def test_counters_of_a_job_add_up(bench):
    """The counters are usage, tool calls, refused calls and children."""
    claim = bench.begin()
    first = turn_of(claim, usage=Usage(input_tokens=10, cached_tokens=4, cache_write_tokens=3, output_tokens=2))
    numbered = {**vars(first), "tool_calls": 3, "invalid_calls": 2, "children": 1}
    bench.store.commit_turn(claim, type(first)(**numbered))
    claim = bench.claim(claim.ref.model_turn(2))
    bench.store.commit_turn(claim, turn_of(claim, usage=Usage(output_tokens=5, reasoning_tokens=4, reported=False)))
    job = bench.store.job("job-1")
    assert job.usage == Usage(
        input_tokens=10, cached_tokens=4, cache_write_tokens=3, output_tokens=7, reasoning_tokens=4, reported=False
    )
    assert (job.tool_calls, job.invalid_calls, job.children) == (3, 2, 1)


# --- defer, park, wait


def test_a_refusal_by_admission_is_not_an_attempt(bench):
    """The step waits and is shown as waiting. Its counts of attempts and lost workers do not change."""
    claim = bench.begin()
    bench.expire(claim.ref)
    claim = bench.claim(claim.ref)
    assert bench.store.defer(claim, not_now(), trace_of(claim, "defer"))
    waiting = bench.store.job("job-1").waiting
    assert (waiting.step, waiting.reason, waiting.attempt) == ("1", "the provider is busy", 0)
    assert waiting.until_ms >= claim.now_ms + HOUR_MS
    assert bench.take(claim.ref) is ClaimRefusal.EARLY
    bench.expire(claim.ref)
    again = bench.claim(claim.ref)
    assert (again.attempt, again.losses, again.job.retries, again.job.waiting) == (0, 1, 0, None)


def test_a_failed_attempt_counts(bench):
    """The count of lost workers returns to zero, because this worker returned."""
    claim = bench.begin()
    bench.expire(claim.ref)
    claim = bench.claim(claim.ref)
    bench.store.defer(claim, not_now(counts=True), trace_of(claim, "defer"))
    bench.expire(claim.ref)
    again = bench.claim(claim.ref)
    assert (again.attempt, again.losses, again.job.retries) == (1, 0, 1)


def test_a_step_that_had_begun_stays_marked_as_begun(bench):
    """A lost reply, a deferral, or a dead letter and its replay must not clear the mark, or a tool would run twice."""
    _, (call,) = bench.to_calls(1)
    first = bench.claim(call)
    bench.expire(call)
    taken = bench.claim(call)
    assert bench.store.claim(call, taken.nonce).interrupted, "forgotten by a lost reply"
    bench.store.defer(taken, not_now(), trace_of(taken, "defer"))
    bench.expire(call)
    deferred = bench.claim(call)
    assert deferred.interrupted, "forgotten by a deferral"
    bench.store.finish(deferred, ending_of(deferred, JobStatus.DEAD_LETTERED), trace_of(deferred, "dead_letter"))
    bench.operations.replay("job-1")
    assert bench.claim(call).interrupted, "forgotten by a replay"
    assert not first.interrupted


def test_a_due_step_is_published_by_one_steward(bench):
    """A sweep publishes steps that are due and steps that were not claimed in time. The next sweep does not repeat them."""
    claim = bench.begin()
    bench.store.defer(claim, not_now(), trace_of(claim, "defer"))
    assert bench.sweep() == []
    bench.expire(claim.ref)
    assert bench.sweep() == ["job-1/1"]
    assert bench.sweep() == []
    assert bench.sweep(patience_ms=0) == ["job-1/1"], "no worker claimed it: its message was lost"
    bench.claim(claim.ref)
    assert bench.sweep(patience_ms=0) == []


YES = HumanDecision(verdict=Verdict.APPROVE)
NO = HumanDecision(verdict=Verdict.REJECT, about=ParkReason.TOOL_APPROVAL, reason="too much")


def test_a_parked_step_waits_for_a_human_and_the_first_decision_wins(bench):
    """The call does not run meanwhile. After the decision it is published again, with the decision."""
    _, (call,) = bench.to_calls(1)
    claim = bench.claim(call)
    assert bench.store.park(claim, ASK, trace_of(claim, "park"))
    job = bench.store.job("job-1")
    assert (job.status, job.waiting.step) == (JobStatus.PARKED, "1.0")
    assert job.waiting.reason == "tool_approval: May tool_0 run?"
    assert bench.take(call) is ClaimRefusal.GONE
    bench.published()
    assert bench.operations.decide("job-1", "1.0", approve=False, reason="too much") is True
    with pytest.raises(Refused, match="running"):
        bench.operations.decide("job-1", "1.0", approve=True)
    assert bench.published() == ["job-1/1.0"]
    decided = bench.claim(call)
    assert (decided.decision, decided.job.status, decided.job.waiting) == (NO, JobStatus.RUNNING, None)


def test_two_parked_calls_are_decided_one_by_one(bench):
    """The job stays parked until the last decision. It shows one of the open questions, even while other calls run."""
    _, calls = bench.to_calls(3)
    for ref in calls[:2]:
        claim = bench.claim(ref)
        bench.store.park(claim, ASK, trace_of(claim, "park"))
    beside = bench.claim(calls[2])
    bench.store.defer(beside, not_now(), trace_of(beside, "defer"))
    assert bench.store.job("job-1").waiting.reason.startswith("tool_approval")
    assert bench.operations.decide("job-1", approve=True) is True
    assert bench.store.job("job-1").status is JobStatus.PARKED
    assert bench.operations.decide("job-1", approve=True) is True
    assert bench.store.job("job-1").status is JobStatus.RUNNING
    assert [bench.claim(ref).decision for ref in calls[:2]] == [YES, YES]


@pytest.mark.parametrize("words", ["unknown_effect is not my word", "rejected:|{}", 'a "quoted" | bar\n\\', ""])
def test_a_decision_answers_the_question_of_its_own_step(bench, words):
    """Two calls of a turn are parked for different reasons. Each decision says which question it answers and keeps its text."""
    _, calls = bench.to_calls(2)
    for ref, reason in zip(calls, (ParkReason.TOOL_APPROVAL, ParkReason.UNKNOWN_EFFECT), strict=True):
        claim = bench.claim(ref)
        bench.store.park(claim, Park(question="May it?", reason=reason), trace_of(claim, "park"))
    for step in ("1.1", "1.0"):
        assert bench.operations.decide("job-1", step, approve=False, reason=words)
    decisions = [bench.claim(ref).decision for ref in calls]
    assert [one.about for one in decisions] == [ParkReason.TOOL_APPROVAL, ParkReason.UNKNOWN_EFFECT]
    assert [one.reason for one in decisions] == [words, words]


def test_a_call_that_waits_for_a_child_may_be_checked_any_time(bench):
    """The child's end or a poll wakes the call. Neither counts as an attempt or as a lost worker."""
    _, (call,) = bench.to_calls(1)
    claim = bench.claim(call)
    assert bench.wait_for_child(claim) is ChildWait.WAITS
    again = bench.claim(call)
    assert (again.interrupted, again.losses, again.attempt) == (False, 0, 0)
    assert bench.wait_for_child(again) is ChildWait.WAITS
    bench.expire(call)
    assert bench.sweep() == ["job-1/1.0"]


# --- ceilings


def test_the_step_ceiling_is_checked_at_the_claim(bench):
    """The turn above `max_steps` is claimed only to end the job, and is not counted."""
    claim = bench.begin(max_steps=1)
    bench.store.commit_turn(claim, turn_of(claim))
    beyond = bench.claim(claim.ref.model_turn(2))
    assert (beyond.ending, beyond.job.turn) == ("step_limit", 1)


def test_the_deadline_is_checked_at_the_claim(bench):
    """After the deadline, every claim may only end the job."""
    _, (call,) = bench.to_calls(1)
    bench.outlive("job-1")
    assert bench.claim(call).ending == "timed_out"


def test_a_job_enqueued_by_name_gets_its_limits_at_its_first_step(bench):
    """The job gets the agent's version, its limit of steps, and a deadline that counts from its start."""
    claim = bench.begin(agent_version="")
    bench.store.set_limits(claim, agent_version="v7", max_steps=3, timeout_ms=5_000, bounds=Bounds())
    job = bench.store.job("job-1")
    assert (job.agent_version, job.max_steps, job.deadline_ms) == ("v7", 3, claim.now_ms + 5_000)


# --- results kept outside the session


def test_a_large_result_is_kept_outside_the_session(bench):
    """A large result is found by its handle, and the next claim says that a kept result exists."""
    claim = bench.begin()
    bench.store.put_result("s1", "h-1", b"\x00bytes\xff")
    assert bench.store.get_result("s1", "h-1") == b"\x00bytes\xff"
    assert bench.store.get_result("s1", "h-2") is None
    assert claim.flags == frozenset()
    assert bench.store.claim(claim.ref, claim.nonce).flags == {"results"}
