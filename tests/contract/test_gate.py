"""May this call start now? What a call reserves, what it costs in the end, and that it is charged once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis as redis_py

from midwatch.orchestration.admission.redis_gate import GRACE_MS, HOLD_MS
from midwatch.orchestration.keyspace import Key
from midwatch.orchestration.protocol.calls import Report
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer, WaitOwner
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits

Make = Callable[..., GateBench]
FIGURES = ("requests", "input_tokens", "output_tokens")


@pytest.fixture
def extra_keys() -> tuple[Key, ...]:
    return (CLOCK_KEY,)


@pytest.fixture
def bench(redis: redis_py.Redis, prefix: str) -> Make:
    def make(**fields: object) -> GateBench:
        bench = GateBench(redis, prefix, {SHOP: limits(**fields)})
        bench.warm()
        return bench

    return make


# --- several resources at once


def test_a_call_takes_of_every_resource_or_of_none(bench: Make) -> None:
    """Every limited resource must have enough left. If one has not, nothing is taken from the others."""
    gate = bench(rpm=600, itpm=60_000, otpm=6_000, tpm=120_000, reserve_output="max_tokens")
    assert gate.status().levels == {"requests": 10, "input_tokens": 1_000, "output_tokens": 100, "tokens": 2_000}
    gate.admit_all(gate.call("a", 400, 80))
    left = {"requests": 9, "input_tokens": 600, "output_tokens": 20, "tokens": 1_520}
    assert gate.status().levels == left
    assert gate.ask(gate.call("b", 100, 80)) == "rate"
    assert gate.status().levels == left


def test_a_resource_without_a_limit_has_no_end(bench: Make) -> None:
    """Without a limit no call waits. A limit that is set later finds no debt."""
    gate = bench()
    gate.admit_all(*(gate.call(f"j{n}", 1_000_000, 8_000) for n in range(50)))
    assert gate.status().levels == {}
    gate.board.set(SHOP, itpm=60_000)
    assert gate.status().levels == {"input_tokens": 0}


def test_a_call_larger_than_the_bucket_waits_for_a_full_one(bench: Make) -> None:
    """The bucket holds the tokens of one second. A call with five times as many starts at a full bucket, and leaves a debt."""
    gate = bench(itpm=60_000)
    gate.admit_all(gate.call("small", 400))
    large = gate.call("large", 5_000)
    assert gate.ask(large) == "rate"
    gate.time.pass_s(0.41)
    assert len(gate.board.release()[0]) == 1
    gate.admit_all(gate.claim_again(large))
    assert gate.status().levels["input_tokens"] == -4_000
    assert gate.ask(gate.call("next", 100)) == "rate"


@pytest.mark.parametrize("headroom", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("itpm", [1_000, 7_777, 30_000, 420_007])
def test_a_call_larger_than_the_bucket_is_woken(bench: Make, itpm: int, headroom: float) -> None:
    """A full bucket is enough, even if rounding makes the sum of the parts slightly larger than the whole."""
    gate = bench(itpm=itpm, headroom=headroom)
    gate.admit_all(gate.call("first", itpm // 20))
    large = gate.call("large", itpm // 20)
    assert gate.ask(large) == "rate"
    gate.time.pass_s(60)
    assert [ref.job_id for ref in gate.board.release()[0]] == ["large"]
    gate.admit_all(gate.claim_again(large))


def test_a_call_larger_than_a_minute_of_the_limit_is_denied(bench: Make) -> None:
    """Waiting would not help. The message names the need, the limit and what to do."""
    gate = bench(itpm=60_000)
    answer = gate.gate.admit(gate.call("huge", 60_001))
    assert isinstance(answer, Failure)
    assert answer.kind is FailureKind.POLICY_DENIED
    for part in ("60001 input tokens", "60000 a minute", "raise the limit or shrink the call"):
        assert part in answer.detail
    assert gate.status().levels["input_tokens"] == 1_000


# --- waits


def test_a_worker_sleeps_a_short_wait_and_defers_a_longer_one(bench: Make) -> None:
    """A sleep of up to 200 ms costs less than another claim of the step. No worker sleeps longer for a limit."""
    gate = bench(rpm=600)
    gate.admit_all(*(gate.call(f"j{n}") for n in range(12)))
    assert gate.held_ms == [0] * 10 + [100, 200]
    answer = gate.gate.admit(gate.call("late"))
    assert isinstance(answer, Defer)
    assert (answer.counts_as_attempt, answer.wakes) == (False, True)
    assert max(gate.held_ms) <= HOLD_MS


def test_a_wait_is_no_attempt_and_keeps_its_place(bench: Make) -> None:
    """A call that asks many times keeps its first place in line, and its lineage pays nothing."""
    gate = bench(rpm=60)
    gate.admit_all(gate.call("now"))
    first, second = gate.call("first"), gate.call("second")
    assert [gate.ask(first), gate.ask(second)] == ["rate", "queued"]
    for _ in range(5):
        assert gate.ask(gate.claim_again(first)) == "queued"
    waiting = gate.status().waiting
    assert waiting["rest_first"] == sum(waiting.values()) == 2
    gate.time.pass_s(1)
    assert [ref.job_id for ref in gate.board.release()[0]] == ["first"]
    gate.admit_all(gate.claim_again(first))
    assert gate.lineage("first")["n"] == 1


def test_a_refused_call_is_held_by_its_downstream(bench: Make) -> None:
    """The wait belongs to the downstream, not to the job: its deadline does not shorten it."""
    gate = bench(rpm=60)
    gate.board.pause(SHOP, 600)
    call = gate.call("hurried")
    claim = call.claim
    deadline_ms = claim.now_ms + 5_000
    hurried = type(claim)(**{**vars(claim), "job": claim.job.model_copy(update={"deadline_ms": deadline_ms})})
    answer = gate.gate.admit(type(call)(**{**vars(call), "claim": hurried}))
    assert isinstance(answer, Defer)
    assert (answer.owner, answer.downstream) == (WaitOwner.DOWNSTREAM, SHOP)
    assert answer.after_ms > 5_001


# --- reserved, then settled


def test_what_was_not_used_comes_back(bench: Make) -> None:
    """A call is reserved before it starts and charged by its usage later. It gets a refund, or owes the difference."""
    gate = bench(itpm=60_000, otpm=6_000)
    small, large = gate.call("a", 400, 80), gate.call("b", 400, 20)
    gate.admit_all(small, large)
    assert gate.status().levels == {"input_tokens": 200, "output_tokens": 0}
    gate.ok(small, 100, 10)
    assert gate.status().levels == {"input_tokens": 500, "output_tokens": 70}
    gate.ok(large, 1_300, 30)
    assert gate.status().levels == {"input_tokens": -400, "output_tokens": 60}
    assert gate.status().live == 0


def test_a_call_that_was_never_sent_costs_nothing(bench: Make) -> None:
    """A call without a key, or one that can't be built, never reaches the downstream: nothing is charged or learned."""
    gate = bench(rpm=600, itpm=60_000, otpm=6_000)
    call = gate.call("a", 400, 80)
    before = gate.status().levels
    gate.admit_all(call)
    gate.fail(call, FailureKind.AUTH_ERROR, sent=False)
    assert gate.status().levels == before
    assert (gate.status().live, gate.status().failed) == (0, 0)


def test_a_call_that_was_refused_a_connection_costs_no_tokens(bench: Make) -> None:
    """The downstream read nothing, so no tokens are charged. The breaker counts a failure."""
    gate = bench(itpm=60_000, otpm=6_000)
    call = gate.call("a", 400, 80)
    before = gate.status().levels
    gate.admit_all(call)
    gate.fail(call, FailureKind.CONNECTION, sent=False)
    assert gate.status().levels == before
    assert (gate.status().live, gate.status().failed) == (0, 1)


def test_a_refused_call_costs_a_request_and_no_tokens(bench: Make) -> None:
    """The provider counted the request that it refused with a 429. It read and wrote no tokens."""
    gate = bench(rpm=600, itpm=60_000, otpm=6_000)
    call = gate.call("a", 5_000, 800)
    gate.admit_all(call)
    assert gate.status().levels == {"requests": 9, "input_tokens": -4_000, "output_tokens": -700}
    gate.fail(call, FailureKind.RATE_LIMITED)
    assert gate.status().levels == dict.fromkeys(FIGURES, 0), "no debt, and nothing saved up for the end of the pause"
    assert gate.status().live == 0


USAGE = {
    "missing": None,
    "not reported": Usage(input_tokens=5, output_tokens=5, reported=False),
    "zero": Usage(),
    "negative input": Usage(input_tokens=-400, output_tokens=10),
    "negative output": Usage(input_tokens=400, output_tokens=-10),
    "beyond reason": Usage(input_tokens=10**15, output_tokens=10**15),
    "more cached than read": Usage(input_tokens=400, cached_tokens=401, output_tokens=10),
    "nothing written": Usage(input_tokens=400, output_tokens=0),
}


@pytest.mark.parametrize("usage", USAGE.values(), ids=USAGE)
def test_usage_that_can_not_be_true_is_charged_as_reserved(bench: Make, usage: Usage | None) -> None:
    """A server's mistake must neither fill the buckets nor empty them for an hour."""
    gate = bench(itpm=60_000, otpm=6_000)
    call = gate.call("a", 400, 80)
    gate.admit_all(call)
    gate.gate.settle(call, Report(usage=usage))
    assert gate.status().levels == {"input_tokens": 600, "output_tokens": 20}


@pytest.mark.parametrize(("rule", "first", "later"), [("expected", 80, 11), ("max_tokens", 80, 80), ("none", 0, 0)])
def test_output_is_reserved_by_the_providers_rule(bench: Make, rule: str, first: int, later: int) -> None:
    """A call reserves what nine of ten recent calls wrote, or all that it may write, or nothing, as its provider counts."""
    gate = bench(otpm=6_000, reserve_output=rule)
    for n in range(20):
        call = gate.call(f"j{n}", output=80)
        gate.admit_all(call)
        if n == 0:
            assert gate.status().levels["output_tokens"] == 100 - first
        gate.ok(call, 1, 11 if n % 2 else 9)
        gate.time.pass_s(60)
    gate.admit_all(gate.call("last", output=80))
    assert gate.status().levels["output_tokens"] == pytest.approx(100 - later, abs=1)


def test_output_charged_by_max_tokens_is_not_refunded(bench: Make) -> None:
    """OpenAI charges `max_tokens`, however many tokens are written."""
    gate = bench(otpm=6_000, reserve_output="max_tokens")
    call = gate.call("a", 10, 80)
    gate.admit_all(call)
    gate.ok(call, 10, 5)
    assert gate.status().levels["output_tokens"] == 20


@pytest.mark.parametrize(("counted", "reserved", "charged"), [(True, 400, 420), (False, 100, 70)])
def test_cached_input_counts_or_not(bench: Make, counted: bool, reserved: int, charged: int) -> None:
    """For Anthropic, input from the prompt cache does not count: not in the reservation, and not in the settlement."""
    gate = bench(itpm=60_000, count_cached=counted)
    call = gate.call("a", 400, cached_tokens=300)
    gate.admit_all(call)
    assert gate.status().levels["input_tokens"] == 1_000 - reserved
    gate.ok(call, 420, 5, cached_tokens=350)
    assert gate.status().levels["input_tokens"] == 1_000 - charged


# --- once


def test_asking_again_after_a_lost_reply_charges_once(bench: Make) -> None:
    """The same claim stays admitted, and waits only for the rest of its time."""
    gate = bench(rpm=600, itpm=60_000)
    gate.admit_all(*(gate.call(f"j{n}") for n in range(10)))
    call = gate.call("a", 400)
    gate.admit_all(call)
    once = (gate.status().levels, gate.status().live, gate.status().admitted, gate.lineage("a"))
    gate.time.pass_s(0)
    gate.admit_all(call)
    assert (gate.status().levels, gate.status().live, gate.status().admitted, gate.lineage("a")) == once
    assert gate.held_ms[-2:] == [100, 100]


def test_a_repeated_question_keeps_what_it_cleared_away(bench: Make) -> None:
    """Every request removes expired records. They stay removed even if the request changes nothing else."""
    gate = bench(rpm=600)
    call = gate.call("long", lasts_s=600)
    gate.admit_all(gate.call("dead", lasts_s=1), call)
    gate.time.pass_s(60)
    gate.admit_all(call)
    assert (gate.status().live, gate.status().lost) == (1, 1)
    gate.ok(call, 1, 1)
    assert gate.status().live == 0


def test_a_second_report_changes_nothing(bench: Make) -> None:
    """An answer after a failure, other headers or a spend cap: no second report of a call counts."""
    gate = bench(rpm=600, itpm=60_000)
    call = gate.call("a", 400)
    gate.admit_all(call)
    gate.ok(call, 100, 5)
    settled = gate.status()
    gate.ok(call, 100, 5)
    gate.fail(call, FailureKind.RATE_LIMITED, headers={"x-ratelimit-remaining-requests": "0"})
    gate.fail(call, FailureKind.QUOTA_EXHAUSTED)
    assert gate.status() == settled


def test_a_report_of_a_call_not_admitted_changes_nothing(bench: Make) -> None:
    """A report of a call that was not admitted comes from a worker that lost its step, or from a defect."""
    gate = bench(rpm=600)
    before = gate.status()
    gate.fail(gate.call("stranger"), FailureKind.RATE_LIMITED)
    assert gate.status() == before


# --- workers that die


def test_what_a_dead_worker_reserved_returns_by_itself(bench: Make) -> None:
    """The reservation ends after the call's longest time plus a grace. No other call is needed. The charge remains."""
    gate = bench(itpm=60_000)
    gate.board.release()
    gate.admit_all(gate.call("a", 400, 80, lasts_s=30, lineage_input_tokens=10_000, lineage_output_tokens=1_000))
    gate.board.release()
    gate.time.pass_s(30 + GRACE_MS / 1_000 - 1)
    gate.board.release()
    assert (gate.status().live, gate.lineage("a")["ri"]) == (1, 400)
    gate.time.pass_s(60)
    gate.board.release()
    assert (gate.status().live, gate.status().lost) == (0, 1)
    lineage = gate.lineage("a")
    assert [lineage[name] for name in ("ri", "ro", "ui", "uo")] == [0, 0, 400, 80]


def test_the_steps_next_claim_returns_it_at_once(bench: Make) -> None:
    """The next claim proves that the worker is dead. The reservation ends at once, and a late report does not count."""
    gate = bench(rpm=600)
    dead = gate.call("a", 400, lineage_input_tokens=10_000, lineage_output_tokens=0)
    gate.admit_all(dead)
    again = gate.claim_again(dead, lost=True)
    gate.admit_all(again)
    assert (gate.status().live, gate.status().lost, gate.lineage("a")["ri"]) == (1, 1, 400)
    gate.fail(dead, FailureKind.QUOTA_EXHAUSTED)
    assert (gate.status().live, gate.status().blocked_reason) == (1, "")
    gate.ok(again, 300, 5)
    assert (gate.status().live, gate.lineage("a")["ui"]) == (0, 700)


# --- names


def test_models_of_a_pattern_share_a_limit_unless_named(redis: redis_py.Redis, prefix: str) -> None:
    """`anthropic:claude-sonnet-*` is one bucket for all its models. The longest pattern wins, and an exact name wins over any."""
    gate = GateBench(
        redis, prefix, {"m:*": limits(rpm=60), "m:sonnet-*": limits(rpm=120), "m:sonnet-5": limits(rpm=180)}
    )
    gate.admit_all(gate.call("a", to="m:sonnet-4"), gate.call("b", to="m:opus"), gate.call("c", to="m:sonnet-5"))
    gate.admit_all(gate.call("d", to="m:sonnet-4-6"))
    assert {name: gate.status(name).admitted for name in gate.board.names()} == {
        "m:*": 1, "m:sonnet-*": 2, "m:sonnet-5": 1,
    }  # fmt: skip


def test_calls_are_counted_as_their_provider_counts(redis: redis_py.Redis, prefix: str) -> None:
    """Anthropic counts written output and no cached input. OpenAI counts `max_tokens`. No limit must be set for this."""
    gate = GateBench(redis, prefix, {})
    for name in ("anthropic:m", "openai:m", "jira"):
        gate.admit_all(gate.call(name.replace(":", "-"), to=name))
    found = {name: gate.board.limits(name) for name in gate.board.names()}
    assert {name: (at.reserve_output, at.count_cached) for name, at in found.items()} == {
        "anthropic:m": ("expected", False), "jira": ("expected", True), "openai:m": ("max_tokens", True),
    }  # fmt: skip
