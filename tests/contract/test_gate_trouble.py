"""A downstream in trouble: how many calls reach it while it answers none, whose fault a failure is, and how it ends."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import redis as redis_py

from midwatch.orchestration.keyspace import Key
from midwatch.orchestration.protocol.calls import Call, Settlement
from midwatch.orchestration.steps.retry import decide
from midwatch.schemas.failure import Failure, FailureKind, RetryAdvice
from midwatch.schemas.policy import TRANSIENT, RetryConfig
from midwatch.schemas.step import DeadLetter, Defer, Priority
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits
from tests.contract.gate_crowd import Answer, Crowd

Make = Callable[..., GateBench]
OUTAGE_S = 120.0
DEFAULTS = RetryConfig()
LAST = Failure(kind=FailureKind.OVERLOADED, detail="529", advice=RetryAdvice.LAST)


@pytest.fixture
def extra_keys() -> tuple[Key, ...]:
    return (CLOCK_KEY,)


@pytest.fixture
def bench(redis: redis_py.Redis, prefix: str) -> Make:
    def make(**fields: object) -> GateBench:
        bench = GateBench(redis, prefix, {SHOP: limits(**{"rpm": 6_000, **fields})})
        bench.warm()
        return bench

    return make


def fail_again(gate: GateBench, call: Call, kind: FailureKind = FailureKind.OVERLOADED) -> tuple[Settlement, Call]:
    """Wait until the call may start, let it fail, and return the answer and the claim of its retry."""
    gate.time.pass_s(30)
    gate.board.release()
    gate.admit_all(call)
    settled = gate.fail(call, kind)
    return settled, gate.claim_again(call, failed=not settled.free)


def most_in_a_second(times: Sequence[float]) -> int:
    """The most calls in any second, wherever it begins."""
    return max((sum(at_s <= other < at_s + 1 for other in times) for at_s in times), default=0)


# --- how many calls reach it


BAD = {
    "429": Answer.bad(FailureKind.RATE_LIMITED),
    "429 with Retry-After": Answer.bad(FailureKind.RATE_LIMITED, retry_after_s=3),
    "529": Answer.bad(FailureKind.OVERLOADED),
    "500": Answer.bad(FailureKind.PROVIDER_ERROR, after_s=0.01),
    "reset": Answer.bad(FailureKind.CONNECTION, after_s=0.001),
    "hang": Answer.bad(FailureKind.TIMEOUT, after_s=6),
}


@pytest.mark.parametrize("jobs", [1, 3, 500])
@pytest.mark.parametrize("kind", BAD)
def test_an_outage_gets_two_calls_a_second_and_ends_no_job(bench: Make, kind: str, jobs: int) -> None:
    """Two minutes long, with the default policy. All jobs are done soon after the end, and never above the limit."""
    gate = bench(rpm=3_000)
    crowd = Crowd(gate, lambda call, at_s: BAD[kind] if at_s < OUTAGE_S else Answer.good(), slots=64, config=DEFAULTS)
    crowd.submit(*(gate.call(f"job-{n}", lasts_s=6) for n in range(jobs)))
    crowd.run(OUTAGE_S + 120)
    assert (len(crowd.done), crowd.ended) == (jobs, [])
    known_s = BAD[kind].after_s + 2  # when the first calls have come back, and those that were live with them
    times = [at_s for at_s, _ in crowd.sent]
    during = [at_s for at_s in times if known_s <= at_s < OUTAGE_S]
    assert most_in_a_second(during) <= 2
    after = [at_s for at_s in times if at_s >= OUTAGE_S]
    assert after[0] - OUTAGE_S <= 15, "the end is noticed soon"
    assert crowd.done[-1][0] - OUTAGE_S <= 15 + 40
    assert most_in_a_second(after) <= 1.15 * 50 + 1


def test_the_gap_between_trials_grows_and_is_bounded(bench: Make) -> None:
    """An outage of an hour costs few calls of a lone job. They are never more than some ten seconds apart."""
    gate = bench()
    crowd = Crowd(gate, lambda call, at_s: Answer.bad(FailureKind.RATE_LIMITED), config=DEFAULTS)
    crowd.submit(gate.call("alone"))
    crowd.run(3_600)
    times = [at_s for at_s, _ in crowd.sent]
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) >= 0.75
    assert 9 <= max(gaps) <= 12.5
    assert len(times) < 3_600 / 6


def test_a_busy_downstream_with_stray_failures_is_not_slowed(bench: Make) -> None:
    """One call in a hundred fails. The others start as soon as their limit allows, and none waits for an answer."""
    gate = bench(rpm=6_000)
    numbers = iter(range(100_000))

    def provider(call: Call, at_s: float) -> Answer:
        return Answer.bad(FailureKind.OVERLOADED) if next(numbers) % 100 == 7 else Answer.good()

    crowd = Crowd(gate, provider, config=DEFAULTS)
    crowd.submit(*(gate.call(f"job-{n}") for n in range(1_500)))
    crowd.run(60)
    assert (len(crowd.done), crowd.ended) == (1_500, [])
    assert crowd.words["trouble"] == 0
    assert sum(crowd.calls_per_second()[2:12]) >= 0.97 * 1_000


def test_all_kinds_of_calls_wait_for_the_same_trial(bench: Make) -> None:
    """Two workers, a retry and a new call, of any priority: one of them goes in each gap."""
    gate = bench()
    first = gate.call("a")
    gate.admit_all(first)
    settled = gate.fail(first)
    assert (settled.why, settled.closed_ms, settled.in_trouble) == ("trouble", 750, True)
    other = gate.another_gate({SHOP: limits(rpm=6_000)})
    assert gate.ask(gate.claim_again(first)) == "trouble"
    assert other.admit(gate.call("b", step="1.0")) is not None
    gate.time.pass_s(0.751)
    assert len(gate.board.release()[0]) == 1
    gate.admit_all(gate.claim_again(first))
    assert gate.board.release()[0] == []
    assert gate.status().in_trouble


@pytest.mark.parametrize("kind", [None, FailureKind.AUTH_ERROR])
def test_one_answer_ends_the_trouble(bench: Make, kind: FailureKind | None) -> None:
    """The others start at the full rate, without a burst. A refusal of a bad request is an answer, too."""
    gate = bench()
    lost = gate.call("lost")
    gate.admit_all(lost)
    gate.fail(lost)
    gate.time.pass_s(1)
    trial, *others = (gate.call(f"job-{n}") for n in range(6))
    gate.admit_all(trial)
    assert gate.ask(others[0]) == "trouble"
    _ = gate.fail(trial, kind) if kind else gate.ok(trial, 10, 10)
    assert (gate.status().in_trouble, gate.status().rate_factor, gate.status().levels["requests"]) == (False, 1.0, 0)
    gate.time.pass_s(0.1)
    gate.board.release()
    gate.admit_all(gate.claim_again(others[0]), *others[1:])


@pytest.mark.parametrize("live", [0, 1, 3, 7, 20])
def test_more_failures_are_needed_while_others_are_live(bench: Make, live: int) -> None:
    """One of the live calls may be answered any moment. Eight failures in a row are enough however many are live."""
    gate = bench(failures_in_a_row=100)
    gate.admit_all(*(gate.call(f"live-{n}") for n in range(live)))
    failures = 0
    while not gate.status().in_trouble:
        call = gate.call(f"lost-{failures}")
        gate.admit_all(call)
        gate.fail(call)
        failures += 1
    assert failures == min(8, live + 1)


def test_late_failures_of_an_earlier_outage_are_no_trouble(bench: Make) -> None:
    """Calls that hung before the breaker opened time out after the recovery. They say nothing about the present."""
    gate = bench()
    old = [gate.call(f"old-{n}") for n in range(20)]
    gate.admit_all(*old)
    gate.board.open(SHOP, 5)
    gate.time.pass_s(6)
    gate.answer_others(3)
    assert gate.status().breaker == "closed"
    for call in old:
        assert gate.fail(call, FailureKind.TIMEOUT).free
    assert not gate.status().in_trouble


@pytest.mark.parametrize("command", ["close", "resume"])
def test_an_operator_ends_the_trouble(bench: Make, command: str) -> None:
    """The next calls go without a gap."""
    gate = bench()
    call = gate.call("a")
    gate.admit_all(call)
    gate.fail(call)
    getattr(gate.board, command)(SHOP)
    gate.admit_all(gate.call("b"), gate.call("c"))


def test_without_a_gap_the_rule_is_off(bench: Make) -> None:
    """`trial_gap_s=0`: an operator may prefer the breaker alone. The negative control of the tests above."""
    gate = bench(rpm=3_000, trial_gap_s=0)
    crowd = Crowd(gate, lambda call, at_s: BAD["429"], config=DEFAULTS)
    crowd.submit(*(gate.call(f"job-{n}") for n in range(100)))
    crowd.run(OUTAGE_S)
    assert most_in_a_second([at_s for at_s, _ in crowd.sent if at_s > 5]) > 2


# --- whose fault a failure is


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_lone_call_never_counts(bench: Make, kind: FailureKind) -> None:
    """There is no other call to compare with."""
    gate = bench()
    call = gate.call("alone")
    for n in range(20):
        settled, call = fail_again(gate, call, kind)
        assert (settled.free, settled.earlier) == (True, n)


@pytest.mark.parametrize("kind", [kind for kind in TRANSIENT if kind is not FailureKind.RATE_LIMITED])
def test_a_call_that_fails_while_others_are_answered_counts(bench: Make, kind: FailureKind) -> None:
    """The first failure does not count, each further one does."""
    gate = bench()
    call, counted = gate.call("poison"), []
    for _ in range(4):
        settled, call = fail_again(gate, call, kind)
        gate.time.pass_s(30)
        gate.answer_others()
        counted.append(not settled.free)
    assert counted == [False, True, True, True]


def test_forbidden_retries_cost_time_in_an_outage(bench: Make) -> None:
    """A vendor that sends `x-should-retry: false` with every answer of an incident ends no job."""
    gate = bench()
    call = gate.call("alone")
    for _ in range(8):
        settled, call = fail_again(gate, call)
        assert isinstance(decide(DEFAULTS, LAST, call.claim.attempt, random.Random(1), settled), Defer)


def test_forbidden_retries_end_a_call_if_others_are_answered(bench: Make) -> None:
    """The first failure is no sign of anything. The second one is the last, although three retries are left."""
    gate = bench()
    call, ends = gate.call("poison"), []
    for _ in range(2):
        settled, call = fail_again(gate, call)
        gate.time.pass_s(30)
        gate.answer_others()
        ends.append(type(decide(DEFAULTS, LAST, call.claim.attempt, random.Random(1), settled)))
    assert ends == [Defer, DeadLetter]


def test_a_trial_that_hangs_past_the_end_of_the_trouble_does_not_count(bench: Make) -> None:
    """Others are answered by the time it fails. But it began while none was."""
    gate = bench()
    _, hanging = fail_again(gate, gate.call("hangs"))
    gate.time.pass_s(30)
    gate.board.release()
    gate.admit_all(hanging)
    for _ in range(5):
        gate.time.pass_s(1)
        gate.board.release()
        gate.answer_others()
    assert gate.fail(hanging, FailureKind.TIMEOUT).free


def test_a_call_that_alone_is_throttled_counts_the_third_time(bench: Make) -> None:
    """A limit is shared, so one or two 429s say little about the call."""
    gate = bench()
    call, counted = gate.call("huge"), []
    for _ in range(5):
        settled, call = fail_again(gate, call, FailureKind.RATE_LIMITED)
        gate.time.pass_s(2)
        gate.answer_others(3)
        counted.append(not settled.free)
    assert counted == [False, False, False, True, True]


def test_a_429_does_not_count_while_others_get_one(bench: Make) -> None:
    """Then the limit is used up, by whomever."""
    gate = bench()
    call = gate.call("a")
    for n in range(6):
        settled, call = fail_again(gate, call, FailureKind.RATE_LIMITED)
        assert settled.free
        gate.time.pass_s(2)
        gate.answer_others(3)
        fail_again(gate, gate.call(f"other-{n}"), FailureKind.RATE_LIMITED)
        gate.time.pass_s(2)
        gate.answer_others(3)


def test_a_brown_out_counts_for_few_calls(bench: Make) -> None:
    """Most of the others fail, too: it is not the call's own fault, although some are answered."""
    gate = bench()
    call = gate.call("a")
    for n in range(10):
        settled, call = fail_again(gate, call)
        assert settled.free
        fail_again(gate, gate.call(f"other-{n}"))
        gate.time.pass_s(30)
        gate.answer_others()


def test_the_count_of_failures_survives_a_worker(bench: Make) -> None:
    """The call waits in line, is woken, its worker dies, it is claimed again and fails: the backoff goes on growing."""
    gate = bench(rpm=60)
    call = gate.call("a")
    for _ in range(3):
        settled, call = fail_again(gate, call)
    gate.time.pass_s(30)
    gate.admit_all(call)
    call = gate.claim_again(call, lost=True)
    gate.time.pass_s(60)
    assert gate.ask(call) in ("trouble", "admitted")
    settled, call = fail_again(gate, gate.claim_again(call))
    assert settled.earlier == 3


def test_an_outage_is_not_charged_to_the_lineage(bench: Make) -> None:
    """Calls that hang in an outage are charged nothing, or a job with a token limit would end. A single lost call is charged."""
    gate = bench()
    budget = {"lineage_input_tokens": 1_000, "lineage_output_tokens": 200}
    call = gate.call("a", 100, 10, **budget)
    for _ in range(20):
        _, call = fail_again(gate, call, FailureKind.TIMEOUT)
    lineage = gate.lineage("a")
    assert [lineage[name] for name in ("ui", "uo", "ri", "ro")] == [100, 10, 0, 0]


def test_an_unknown_limit_is_not_guessed_from_an_outage(bench: Make) -> None:
    """Two minutes of 429s say nothing about the limit. Otherwise the guess would fall to six calls a minute."""
    gate = bench(rpm=None)

    def provider(call: Call, at_s: float) -> Answer:
        return BAD["429"] if 5 <= at_s < 5 + OUTAGE_S else Answer.good()

    crowd = Crowd(gate, provider, slots=16, config=DEFAULTS)
    crowd.submit(*(gate.call(f"job-{n}") for n in range(500)))
    crowd.run(OUTAGE_S)
    assert gate.status().guessed
    assert gate.status().limits["requests"] >= 300
    crowd.run(OUTAGE_S + 180)
    assert (len(crowd.done), crowd.ended) == (500, [])


# --- jobs that end while they wait


def put_in_trouble(gate: GateBench) -> None:
    """Let one call fail while no other is live."""
    call = gate.call("first")
    gate.admit_all(call)
    gate.fail(call)


def test_jobs_that_end_leave_their_line(bench: Make) -> None:
    """A replay is the next one, and does not wait behind the calls of jobs that have ended."""
    gate = bench()
    put_in_trouble(gate)
    over = [gate.call(f"over-{n}") for n in range(40)]
    assert {gate.ask(call) for call in over} <= {"trouble", "queued"}
    for call in over:
        gate.gate.leave_line(call.claim.ref, SHOP)
    assert gate.status().waiters == 0
    replay = gate.call("replay", priority=Priority.REPLAY)
    assert gate.ask(replay) == "trouble"
    gate.time.pass_s(30)
    assert [ref.job_id for ref in gate.board.release()[0]] == ["replay"]
    gate.admit_all(gate.claim_again(replay))


def test_a_woken_step_that_is_gone_costs_no_trial(bench: Make) -> None:
    """The next call is woken at once, not after another gap."""
    gate = bench()
    put_in_trouble(gate)
    for name in ("gone", "waits"):
        gate.ask(gate.call(name))
    gate.time.pass_s(30)
    woken, _ = gate.board.release(lambda refs: [ref for ref in refs if ref.job_id != "gone"])
    woken += gate.board.release()[0]
    assert [ref.job_id for ref in woken] == ["waits"]
