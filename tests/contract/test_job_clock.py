"""A job's clock: what counts as its own work, what counts as held by others, and which limit ends it.

Every test runs on a real Redis, where the times are short and pass by themselves, and on the Redis in this process, whose
clock a test moves. No test asserts that something is quick.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from midwatch.orchestration.errors import Refused
from midwatch.orchestration.protocol.claims import ClaimRefusal
from midwatch.orchestration.protocol.store_replies import ChildWait
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.testing.in_process_redis import connect
from midwatch.orchestration.testing.manual_clock import ManualClock
from midwatch.schemas.decision import ParkReason, Verdict
from midwatch.schemas.job import JobStatus
from midwatch.schemas.lineage import Bounds
from midwatch.schemas.step import Defer, Park, WaitOwner
from tests.contract.store_bench import ASK, Bench, ending_of, results_of, trace_of, turn_of
from tests.properties.contents import HOUR_MS
from tests.properties.two_servers import new_job

SHORT_MS = 30
"""A time that passes in a test."""

LIMIT_MS = 500
"""A limit that a busy machine does not reach by itself."""

MODEL = "scripted:m-1"


class TimedBench(Bench):
    """A bench whose time passes."""

    def __init__(self, client: Any, prefix: str, clock: ManualClock | None) -> None:
        super().__init__(client, prefix)
        self._clock = clock

    def pass_ms(self, ms: int = SHORT_MS) -> None:
        """Let at least this time pass."""
        if self._clock:
            self._clock.advance(ms)
        else:
            time.sleep(ms / 1_000)

    def now_ms(self) -> int:
        """The server's time."""
        seconds, micros = self.client.time()
        return int(seconds) * 1_000 + int(micros) // 1_000

    def sums(self, job_id: str = "job-1") -> tuple[int, int]:
        """How long the job has worked, and how long others have held it since it was enqueued."""
        job, now_ms = self.store.job(job_id), self.now_ms()
        return job.count_worked_ms(now_ms), job.count_held_ms(now_ms)

    def defer(self, claim: Any, after_ms: int = 0, owner: WaitOwner = WaitOwner.DOWNSTREAM) -> None:
        """Put a step back, held by `owner`."""
        downstream = MODEL if owner is WaitOwner.DOWNSTREAM else None
        defer = Defer(
            after_ms=after_ms,
            reason="busy",
            counts_as_attempt=owner is WaitOwner.JOB,
            owner=owner,
            downstream=downstream,
        )
        assert self.store.defer(claim, defer, trace_of(claim, "defer"))

    def end(self, claim: Any, status: JobStatus = JobStatus.DEAD_LETTERED) -> None:
        """End the job at a claimed step."""
        assert self.store.finish(claim, ending_of(claim, status), trace_of(claim))

    def park(self, claim: Any, park: Park = ASK) -> None:
        """Park a claimed step."""
        assert self.store.park(claim, park, trace_of(claim, "park"))


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest) -> TimedBench:
    if request.param == "in_process":
        clock = ManualClock()
        return TimedBench(connect(clock), "inline", clock)
    return TimedBench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"), None)


# --- whose time it is


def test_waiting_for_a_worker_is_not_work(bench):
    """Before the first step and between two steps, the job is held by a lack of workers."""
    job = new_job("job-1", "s1")
    bench.store.enqueue(job)
    bench.pass_ms()
    claim = bench.claim(job.ref)
    assert claim.job.held_ms >= SHORT_MS
    bench.store.commit_turn(claim, turn_of(claim))
    bench.pass_ms()
    again = bench.claim(claim.ref.model_turn(2))
    assert again.job.held_ms >= 2 * SHORT_MS
    assert again.job.deadline_ms - claim.job.deadline_ms >= SHORT_MS, "the session timeout stood still"


def test_work_and_holds_add_up_to_the_time_since_enqueue(bench):
    """No time is counted twice, and none is lost."""
    claim = bench.begin()
    bench.pass_ms()
    bench.defer(claim)
    bench.pass_ms()
    bench.store.commit_turn(again := bench.claim(claim.ref), turn_of(again))
    bench.pass_ms()
    last = bench.claim(claim.ref.model_turn(2))
    bench.pass_ms()
    bench.end(last)
    job = bench.store.job("job-1")
    worked_ms, held_ms = bench.sums()
    assert worked_ms + held_ms == job.finished_ms - job.created_ms
    assert worked_ms >= SHORT_MS
    assert held_ms >= 3 * SHORT_MS, "the deferred call hung in its downstream: that was not work either"


def test_the_jobs_own_backoff_is_work(bench):
    """It waits because of its own failure. When the backoff has ended, only the lack of workers holds it."""
    claim = bench.begin()
    bench.defer(claim, after_ms=SHORT_MS, owner=WaitOwner.JOB)
    bench.pass_ms(2 * SHORT_MS)
    again = bench.claim(claim.ref)
    worked_ms, held_ms = bench.sums()
    assert worked_ms >= SHORT_MS
    assert held_ms >= SHORT_MS
    assert again.job.held_ms == held_ms


def test_a_downstream_a_human_and_a_compaction_hold_the_job(bench):
    """Whoever holds a step, its session timeout stands still."""
    claim = bench.begin()
    for owner in (WaitOwner.DOWNSTREAM, WaitOwner.SESSION, WaitOwner.WORKERS):
        bench.defer(claim, owner=owner)
        bench.pass_ms()
        claim = bench.claim(claim.ref)
    bench.park(claim)
    bench.pass_ms()
    assert bench.operations.decide("job-1", approve=True)
    decided = bench.claim(claim.ref)
    assert decided.job.held_ms >= 4 * SHORT_MS
    worked_ms = decided.job.count_worked_ms(decided.now_ms)
    assert worked_ms + decided.job.held_ms == decided.now_ms - decided.job.created_ms


def test_no_time_is_held_while_another_call_of_the_turn_works(bench):
    """One call waits for its downstream, the other one runs: the job works."""
    _, calls = bench.to_calls(2)
    working, waiting = bench.claim(calls[0]), bench.claim(calls[1])
    before_ms = bench.store.job("job-1").held_ms
    bench.defer(waiting)
    bench.pass_ms()
    assert bench.claim(calls[1]).job.held_ms == before_ms
    bench.store.commit_results(working, results_of(working))


def test_a_call_holds_the_job_from_the_end_of_the_others_on(bench):
    """The last call that works has ended. From then on only the one that hangs in its downstream is left."""
    _, calls = bench.to_calls(2)
    hanging, working = bench.claim(calls[0]), bench.claim(calls[1])
    bench.pass_ms()
    bench.store.commit_results(working, results_of(working))
    worked_ms, held_ms = bench.sums()
    bench.pass_ms()
    bench.defer(hanging)
    again = bench.claim(calls[0])
    assert again.job.held_ms >= held_ms + SHORT_MS
    assert worked_ms >= SHORT_MS


def test_a_dead_worker_holds_the_step_from_the_end_of_its_lease_on(bench):
    """Up to then the worker may have worked."""
    bench.store = RedisStore(bench.client, bench.keys, bench.sent, lease_ms=SHORT_MS)
    claim = bench.begin()
    bench.pass_ms(2 * SHORT_MS)
    taken = bench.claim(claim.ref)
    assert taken.losses == 1
    assert taken.job.count_worked_ms(taken.now_ms) == SHORT_MS
    assert taken.job.held_ms >= SHORT_MS


def test_a_lost_reply_to_a_claim_counts_nothing_twice(bench):
    """The same nonce gets the same claim, and the same sums."""
    claim = bench.begin()
    again = bench.store.claim(claim.ref, claim.nonce)
    assert (again.job.held_ms, again.job.working) == (claim.job.held_ms, 1)
    assert again.job.deadline_ms == claim.job.deadline_ms


def test_a_childs_work_counts_and_its_waits_do_not(bench):
    """The parent waits for two children at the same time. Only the longest work counts, once."""
    _, calls = bench.to_calls(2)
    claims = [bench.claim(call) for call in calls]
    for claim in claims:
        assert bench.wait_for_child(claim) is ChildWait.WAITS
    start_ms = bench.store.job("job-1").deadline_ms
    bench.pass_ms(3 * SHORT_MS)
    for call, worked_ms in zip(calls, (SHORT_MS, SHORT_MS - 10), strict=True):
        claim = bench.claim(call)
        assert bench.wait_for_child(claim, worked_ms) is ChildWait.WAITS
    job = bench.store.job("job-1")
    assert job.deadline_ms - start_ms >= 2 * SHORT_MS, "the rest was held"
    claim = bench.claim(calls[0])
    before_ms = claim.job.held_ms
    assert bench.store.commit_results(claim, replace(results_of(claim), child_worked_ms=SHORT_MS + 5))
    assert bench.store.job("job-1").held_ms == before_ms - 5, "what it worked more than the longest so far"


def test_waiting_behind_a_job_of_its_session_is_not_counted_as_held(bench):
    """`max_wait_s` counts from the time when the job has the session. `deadline_s` counts from `enqueue`."""
    first = bench.begin("job-1")
    bench.store.enqueue(new_job("job-2", "s1", max_wait_ms=HOUR_MS, max_total_ms=HOUR_MS))
    queued = bench.store.job("job-2")
    queued_ms = queued.created_ms
    assert queued.held_since_ms is None
    bench.pass_ms()
    bench.end(first, JobStatus.COMPLETED)
    second = bench.claim(new_job("job-2", "s1").ref)
    assert second.job.held_ms <= second.now_ms - queued_ms - SHORT_MS
    assert second.job.ends_by_ms == queued_ms + HOUR_MS


# --- which limit ends it


@pytest.mark.parametrize("owner", [one for one in WaitOwner if one is not WaitOwner.JOB])
def test_a_job_ends_when_others_hold_it_for_too_long(bench, owner):
    """A steward finds the step at the limit, long before it is due. The claim says which limit it is, and who held the job."""
    claim = bench.begin(max_wait_ms=SHORT_MS)
    bench.defer(claim, after_ms=HOUR_MS, owner=owner)
    bench.pass_ms(2 * SHORT_MS)
    assert bench.sweep() == ["job-1/1"]
    ending = bench.claim(claim.ref)
    assert (ending.ending, ending.job.holder.owner) == ("max_wait", owner)


def test_a_job_may_wait_longer_than_its_session_timeout(bench):
    """An outage costs time and not the job."""
    claim = bench.begin(timeout_ms=SHORT_MS)
    bench.defer(claim)
    bench.pass_ms(3 * SHORT_MS)
    assert bench.claim(claim.ref).ending == ""


def test_a_job_that_works_for_too_long_is_timed_out(bench):
    """Negative control of the test above: the same time as work ends the job."""
    _, (call, _) = bench.to_calls(2, timeout_ms=SHORT_MS)
    bench.claim(call)
    bench.pass_ms(3 * SHORT_MS)
    assert bench.claim(call.model_copy(update={"step": "1.1"})).ending == "timed_out"


def test_an_own_backoff_ends_at_the_session_timeout(bench):
    """The step comes back when the time is over, and not an hour later."""
    claim = bench.begin(timeout_ms=SHORT_MS)
    bench.defer(claim, after_ms=HOUR_MS, owner=WaitOwner.JOB)
    bench.pass_ms(2 * SHORT_MS)
    assert bench.sweep() == ["job-1/1"]
    assert bench.claim(claim.ref).ending == "timed_out"


@pytest.mark.parametrize("owner", [WaitOwner.JOB, WaitOwner.DOWNSTREAM])
def test_the_deadline_bounds_work_and_waits_together(bench, owner):
    """`deadline_s` is an answer time: whoever holds the job, it ends then."""
    claim = bench.begin(max_total_ms=SHORT_MS)
    bench.defer(claim, after_ms=HOUR_MS, owner=owner)
    bench.pass_ms(2 * SHORT_MS)
    assert bench.sweep() == ["job-1/1"]
    assert bench.claim(claim.ref).ending == "deadline"


def test_a_step_that_comes_back_too_early_waits_on(bench):
    """A limit was raised meanwhile. The steward put the step into the queue in vain: it is due again at the right time."""
    claim = bench.begin(max_wait_ms=SHORT_MS)
    bench.defer(claim, after_ms=HOUR_MS)
    bench.client.hset(bench.keys.job("s1", "job-1"), "max_wait_ms", HOUR_MS)
    bench.pass_ms(2 * SHORT_MS)
    assert bench.sweep() == ["job-1/1"]
    assert bench.take(claim.ref) is ClaimRefusal.EARLY
    assert bench.sweep(patience_ms=0) == []
    bench.expire(claim.ref)
    assert bench.sweep() == ["job-1/1"]


def test_a_parked_step_that_waited_too_long_asks_again_after_a_replay(bench):
    """No one decided. The step is a dead letter with its call, and the replay parks it again."""
    _, calls = bench.to_calls(2, max_wait_ms=SHORT_MS)
    for call in calls:
        bench.park(bench.claim(call))
    bench.pass_ms(2 * SHORT_MS)
    assert sorted(bench.sweep()) == ["job-1/1.0", "job-1/1.1"]
    ending = bench.claim(calls[0])
    assert ending.ending == "max_wait"
    bench.end(ending)
    assert bench.take(calls[1]) is ClaimRefusal.GONE
    bench.published()
    assert bench.operations.replay("job-1", wait_ms=HOUR_MS)
    assert bench.published() == ["job-1/1.0"]
    again = bench.claim(calls[0])
    assert (again.ending, again.decision, again.call.name) == ("", None, "tool_0")
    bench.park(again)
    assert bench.store.job("job-1").status is JobStatus.PARKED
    for step in ("1.0", "1.1"):
        assert bench.operations.decide("job-1", step, approve=True)
    assert [bench.claim(call).ending for call in calls] == ["", ""]


def test_a_parent_ends_when_its_children_wait_for_too_long(bench):
    """What the child worked is taken off first: work can't exceed `max_wait_s`."""
    _, (call,) = bench.to_calls(1, max_wait_ms=LIMIT_MS)
    bench.wait_for_child(bench.claim(call))
    bench.pass_ms(LIMIT_MS + SHORT_MS)
    waited_ms = bench.now_ms() - bench.store.job("job-1").created_ms
    claim = bench.claim(call)
    assert claim.ending == "", "the child may have worked all the time"
    assert bench.wait_for_child(claim, waited_ms) is ChildWait.WAITS
    bench.pass_ms(LIMIT_MS + SHORT_MS)
    claim = bench.claim(call)
    assert bench.wait_for_child(claim, waited_ms) is ChildWait.MAX_WAIT
    bench.end(claim)
    assert bench.operations.replay("job-1")
    assert bench.claim(call).ending == ""


def test_a_job_that_no_worker_took_in_time_ends_before_its_first_step(bench):
    """The letter has the whole input, and the replay begins with it."""
    job = new_job("job-1", "s1", max_wait_ms=LIMIT_MS)
    bench.store.enqueue(job)
    bench.pass_ms(LIMIT_MS + SHORT_MS)
    ending = bench.claim(job.ref)
    assert (ending.ending, ending.job.holder) == ("max_wait", None)
    bench.end(ending)
    assert bench.operations.replay("job-1")
    again = bench.claim(job.ref)
    assert again.ending == ""
    assert [message.text for message in again.log] == [job.input]


def test_a_job_enqueued_by_name_gets_the_time_limits_of_its_agent(bench):
    """The limits count from the same moments as if the producer had known them."""
    claim = bench.begin(agent_version="", max_wait_ms=HOUR_MS)
    bench.store.set_limits(
        claim,
        agent_version="v7",
        max_steps=3,
        timeout_ms=5_000,
        max_wait_ms=None,
        max_total_ms=HOUR_MS,
        bounds=Bounds(),
    )
    job = bench.store.job("job-1")
    assert (job.max_held_ms, job.max_worked_ms, job.ends_by_ms) == (None, 5_000, job.created_ms + HOUR_MS)
    assert job.deadline_ms == claim.now_ms + 5_000


# --- replay


def test_a_replay_starts_the_limits_again(bench):
    """What the job worked and waited before stays in the sums, but not in the way. The time as a dead letter is neither."""
    claim = bench.begin(timeout_ms=HOUR_MS, max_wait_ms=LIMIT_MS, max_total_ms=2 * HOUR_MS)
    bench.pass_ms()
    bench.defer(claim, owner=WaitOwner.JOB)
    bench.defer(bench.claim(claim.ref), after_ms=HOUR_MS)
    bench.pass_ms(LIMIT_MS + SHORT_MS)
    bench.end(bench.claim(claim.ref))
    worked_ms, held_ms = bench.sums()
    assert worked_ms >= SHORT_MS
    bench.pass_ms()
    assert bench.sums() == (worked_ms, held_ms)
    assert bench.operations.replay("job-1")
    job = bench.store.job("job-1")
    assert (job.max_worked_ms, job.max_held_ms) == (worked_ms + HOUR_MS, held_ms + LIMIT_MS)
    assert job.deadline_ms == job.ends_by_ms - HOUR_MS
    again = bench.claim(claim.ref)
    assert again.ending == ""
    assert again.job.count_worked_ms(again.now_ms) == worked_ms


def test_a_replay_grants_more_time_and_more_wait(bench):
    """`dlq replay --time --wait`: the grants count from now on. The next replay starts with the agent's limits again."""
    claim = bench.begin(timeout_ms=SHORT_MS, max_wait_ms=SHORT_MS)
    bench.end(claim)
    assert bench.operations.replay("job-1", time_ms=2 * HOUR_MS, wait_ms=3 * HOUR_MS)
    again = bench.claim(claim.ref)
    worked_ms, held_ms = bench.sums()
    assert again.job.max_worked_ms - worked_ms <= 2 * HOUR_MS
    assert again.job.deadline_ms > again.now_ms + HOUR_MS
    assert again.job.max_held_ms > held_ms + 2 * HOUR_MS
    bench.end(again)
    bench.operations.replay("job-1")
    assert bench.store.job("job-1").deadline_ms < bench.now_ms() + HOUR_MS


# --- expiry


def ask(on_expiry: str, expires_ms: int = SHORT_MS) -> Park:
    return Park(question="May it?", reason=ParkReason.TOOL_APPROVAL, expires_ms=expires_ms, on_expiry=on_expiry)


@pytest.mark.parametrize(("on_expiry", "verdict"), [("approve", Verdict.APPROVE), ("reject", Verdict.REJECT)])
def test_a_question_expires_with_the_declared_decision(bench, on_expiry, verdict):
    """A steward finds the step at its expiry. A human's decision after that is refused in words."""
    _, (call,) = bench.to_calls(1)
    bench.park(bench.claim(call), ask(on_expiry))
    assert bench.store.job("job-1").waiting.on_expiry == on_expiry
    bench.pass_ms(2 * SHORT_MS)
    with pytest.raises(Refused, match="expired"):
        bench.operations.decide("job-1", approve=True)
    assert bench.sweep() == ["job-1/1.0"]
    claim = bench.claim(call)
    assert (claim.ending, claim.decision.verdict, claim.job.status) == ("", verdict, JobStatus.RUNNING)
    if verdict is Verdict.REJECT:
        assert (claim.decision.about, claim.decision.reason) == (
            ParkReason.TOOL_APPROVAL,
            "no decision was made within 0.03 s",
        )
    assert claim.job.waiting is None


def test_a_question_may_expire_as_a_dead_letter(bench):
    """The replay asks again."""
    _, (call,) = bench.to_calls(1)
    bench.park(bench.claim(call), ask("dead_letter"))
    bench.pass_ms(2 * SHORT_MS)
    ending = bench.claim(call)
    assert (ending.ending, ending.decision) == ("expired", None)
    bench.end(ending)
    bench.operations.replay("job-1")
    again = bench.claim(call)
    assert (again.ending, again.decision) == ("", None)


def test_a_question_does_not_expire_before_its_time(bench):
    """A message for the parked step finds nothing to do, and the step is still found at its expiry."""
    _, (call,) = bench.to_calls(1)
    bench.park(bench.claim(call), ask("approve", HOUR_MS))
    assert bench.take(call) is ClaimRefusal.GONE
    assert bench.sweep(patience_ms=0) == []
    assert bench.operations.decide("job-1", approve=False, reason="no")
    assert bench.claim(call).decision.verdict is Verdict.REJECT


def test_a_replay_gives_an_open_question_its_whole_time_again(bench):
    """Its time passed while the job was dead, so no human could have decided."""
    _, calls = bench.to_calls(2)
    bench.park(bench.claim(calls[0]), ask("approve"))
    bench.end(bench.claim(calls[1]))
    bench.pass_ms(2 * SHORT_MS)
    assert bench.take(calls[0]) is ClaimRefusal.GONE
    bench.operations.replay("job-1")
    waiting = bench.store.job("job-1").waiting
    assert waiting.until_ms - waiting.since_ms == SHORT_MS
    bench.pass_ms(2 * SHORT_MS)
    assert "job-1/1.0" in bench.sweep()
    assert bench.claim(calls[0]).decision.verdict is Verdict.APPROVE


# --- shown


def test_deferrals_by_one_holder_are_one_hold(bench):
    """`since` is the begin of the first one. Another holder begins a new hold."""
    claim = bench.begin()
    bench.defer(claim)
    first = bench.store.job("job-1").waiting
    assert (first.owner, first.downstream) == (WaitOwner.DOWNSTREAM, MODEL)
    bench.pass_ms()
    bench.defer(bench.claim(claim.ref))
    assert bench.store.job("job-1").waiting.since_ms == first.since_ms
    bench.defer(bench.claim(claim.ref), owner=WaitOwner.SESSION)
    last = bench.store.job("job-1").waiting
    assert (last.owner, last.downstream) == (WaitOwner.SESSION, None)
    assert last.since_ms >= first.since_ms + SHORT_MS


def test_a_job_shows_the_child_for_which_it_waits(bench):
    """Until the child ends, the parent is held by it."""
    _, (call,) = bench.to_calls(1)
    bench.wait_for_child(bench.claim(call))
    waiting = bench.store.job("job-1").waiting
    assert (waiting.owner, waiting.reason) == (WaitOwner.CHILD, "child job job-child")
