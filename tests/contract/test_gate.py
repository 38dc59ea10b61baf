"""May this call start now? What a call reserves, what it costs in the end, and that it costs it once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis as redis_py

from midwatch.orchestration.admission.redis_gate import GRACE_MS, HOLD_MS
from midwatch.orchestration.keyspace import Key
from midwatch.orchestration.protocol.calls import Report
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits

Make = Callable[..., GateBench]
FIGURES = ("requests", "input_tokens", "output_tokens")


@pytest.fixture
def extra_keys() -> tuple[Key, ...]:
    return (CLOCK_KEY,)


@pytest.fixture
def bench(redis: redis_py.Redis, prefix: str) -> Make:
    def made(**fields: object) -> GateBench:
        bench = GateBench(redis, prefix, {SHOP: limits(**fields)})
        bench.warm()
        return bench

    return made


# --- several resources at once


def test_a_call_takes_of_every_resource_or_of_none(bench: Make) -> None:
    """Requests, input, output and both on one axis; what is short decides, and the others are left alone."""
    gate = bench(rpm=600, itpm=60_000, otpm=6_000, tpm=120_000, reserve_output="max_tokens")
    assert gate.status().levels == {"requests": 10, "input_tokens": 1_000, "output_tokens": 100, "tokens": 2_000}
    gate.admitted(gate.call("a", 400, 80))
    left = {"requests": 9, "input_tokens": 600, "output_tokens": 20, "tokens": 1_520}
    assert gate.status().levels == left
    assert gate.ask(gate.call("b", 100, 80)) == "rate"
    assert gate.status().levels == left


def test_a_resource_without_a_limit_has_no_end(bench: Make) -> None:
    """Nobody named one: nothing waits, and nothing is owed when somebody does."""
    gate = bench()
    gate.admitted(*(gate.call(f"j{n}", 1_000_000, 8_000) for n in range(50)))
    assert gate.status().levels == {}
    gate.board.set(SHOP, itpm=60_000)
    assert gate.status().levels == {"input_tokens": 0}


def test_a_call_larger_than_the_bucket_waits_until_it_is_full_and_then_owes(bench: Make) -> None:
    """One second's worth is the depth; a call of five is let through when nothing was taken, and five seconds are owed."""
    gate = bench(itpm=60_000)
    gate.admitted(gate.call("small", 400))
    large = gate.call("large", 5_000)
    assert gate.ask(large) == "rate"
    gate.time.pass_s(0.41)
    assert len(gate.board.release()[0]) == 1
    gate.admitted(gate.claimed_again(large))
    assert gate.status().levels["input_tokens"] == -4_000
    assert gate.ask(gate.call("next", 100)) == "rate"


@pytest.mark.parametrize("headroom", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("itpm", [1_000, 7_777, 30_000, 420_007])
def test_a_call_larger_than_the_bucket_is_woken_whatever_the_figures(bench: Make, itpm: int, headroom: float) -> None:
    """A full bucket is enough for it, also where the sum of its parts is rounded to a little more than the whole."""
    gate = bench(itpm=itpm, headroom=headroom)
    gate.admitted(gate.call("first", itpm // 20))
    large = gate.call("large", itpm // 20)
    assert gate.ask(large) == "rate"
    gate.time.pass_s(60)
    assert [ref.job_id for ref in gate.board.release()[0]] == ["large"]
    gate.admitted(gate.claimed_again(large))


def test_a_call_larger_than_a_minute_of_the_limit_is_denied(bench: Make) -> None:
    """No waiting cures it; the message says what is needed, what there is, and what to do."""
    gate = bench(itpm=60_000)
    answer = gate.gate.admit(gate.call("huge", 60_001))
    assert isinstance(answer, Failure)
    assert answer.kind is FailureKind.POLICY_DENIED
    for part in ("60001 input tokens", "60000 a minute", "raise the limit or shrink the call"):
        assert part in answer.detail
    assert gate.status().levels["input_tokens"] == 1_000


# --- waits


def test_a_short_wait_is_slept_in_the_worker_and_a_longer_one_is_given_back(bench: Make) -> None:
    """200 ms cost less than to claim the step again; no worker sleeps longer than that on a limit."""
    gate = bench(rpm=600)
    gate.admitted(*(gate.call(f"j{n}") for n in range(12)))
    assert gate.held_ms == [0] * 10 + [100, 200]
    answer = gate.gate.admit(gate.call("late"))
    assert isinstance(answer, Defer)
    assert (answer.counts_as_attempt, answer.wakes) == (False, True)
    assert max(gate.held_ms) <= HOLD_MS


def test_a_wait_is_no_attempt_and_keeps_its_place(bench: Make) -> None:
    """However often it asks, it stands once in line, where it came, and the lineage has paid nothing."""
    gate = bench(rpm=60)
    gate.admitted(gate.call("now"))
    first, second = gate.call("first"), gate.call("second")
    assert [gate.ask(first), gate.ask(second)] == ["rate", "queued"]
    for _ in range(5):
        assert gate.ask(gate.claimed_again(first)) == "queued"
    assert gate.status().waiting == {"high": 0, "rest": 2, "retry": 0}
    gate.time.pass_s(1)
    assert [ref.job_id for ref in gate.board.release()[0]] == ["first"]
    gate.admitted(gate.claimed_again(first))
    assert gate.lineage("first")["n"] == 1


def test_a_job_that_waits_for_a_limit_ends_in_time_all_the_same(bench: Make) -> None:
    """The step comes back at the job's deadline at the latest, so that a timeout is found out."""
    gate = bench(rpm=60)
    gate.board.pause(SHOP, 600)
    call = gate.call("hurried")
    claim = call.claim
    deadline_ms = claim.now_ms + 5_000
    hurried = type(claim)(**{**vars(claim), "job": claim.job.model_copy(update={"deadline_ms": deadline_ms})})
    answer = gate.gate.admit(type(call)(**{**vars(call), "claim": hurried}))
    assert isinstance(answer, Defer)
    assert answer.after_ms == 5_001


# --- reserved, then settled


def test_what_was_not_used_comes_back(bench: Make) -> None:
    """Reserved before the call, charged by its usage after it: a refund, or a debt when it used more."""
    gate = bench(itpm=60_000, otpm=6_000)
    small, large = gate.call("a", 400, 80), gate.call("b", 400, 20)
    gate.admitted(small, large)
    assert gate.status().levels == {"input_tokens": 200, "output_tokens": 0}
    gate.ok(small, 100, 10)
    assert gate.status().levels == {"input_tokens": 500, "output_tokens": 70}
    gate.ok(large, 1_300, 30)
    assert gate.status().levels == {"input_tokens": -400, "output_tokens": 60}
    assert gate.status().live == 0


def test_a_call_that_was_never_sent_costs_nothing(bench: Make) -> None:
    """No key, a request that can't be built: the downstream never saw it, and nothing is known of it."""
    gate = bench(rpm=600, itpm=60_000, otpm=6_000)
    call = gate.call("a", 400, 80)
    before = gate.status().levels
    gate.admitted(call)
    gate.fails(call, FailureKind.AUTH_ERROR, sent=False)
    assert gate.status().levels == before
    assert (gate.status().live, gate.status().failed) == (0, 0)


def test_a_call_that_was_refused_a_connection_costs_no_tokens(bench: Make) -> None:
    """Nothing was read; but that nobody answered is a failure of the downstream, and its breaker hears of it."""
    gate = bench(itpm=60_000, otpm=6_000)
    call = gate.call("a", 400, 80)
    before = gate.status().levels
    gate.admitted(call)
    gate.fails(call, FailureKind.CONNECTION, sent=False)
    assert gate.status().levels == before
    assert (gate.status().live, gate.status().failed) == (0, 1)


def test_a_refused_call_costs_a_request_and_no_tokens(bench: Make) -> None:
    """A 429 was counted by who refused it; nothing was read or written for it."""
    gate = bench(rpm=600, itpm=60_000, otpm=6_000)
    call = gate.call("a", 5_000, 800)
    gate.admitted(call)
    assert gate.status().levels == {"requests": 9, "input_tokens": -4_000, "output_tokens": -700}
    gate.fails(call, FailureKind.RATE_LIMITED)
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
    gate.admitted(call)
    gate.gate.settle(call, Report(usage=usage))
    assert gate.status().levels == {"input_tokens": 600, "output_tokens": 20}


@pytest.mark.parametrize(("rule", "first", "later"), [("expected", 80, 11), ("max_tokens", 80, 80), ("none", 0, 0)])
def test_output_is_reserved_by_the_providers_rule(bench: Make, rule: str, first: int, later: int) -> None:
    """What calls lately wrote (nine of ten no more than this), all it may write, or nothing."""
    gate = bench(otpm=6_000, reserve_output=rule)
    for n in range(20):
        call = gate.call(f"j{n}", output=80)
        gate.admitted(call)
        if n == 0:
            assert gate.status().levels["output_tokens"] == 100 - first
        gate.ok(call, 1, 11 if n % 2 else 9)
        gate.time.pass_s(60)
    gate.admitted(gate.call("last", output=80))
    assert gate.status().levels["output_tokens"] == pytest.approx(100 - later, abs=1)


def test_output_that_was_asked_for_is_not_refunded_where_it_is_charged_so(bench: Make) -> None:
    """OpenAI counts `max_tokens`, written or not."""
    gate = bench(otpm=6_000, reserve_output="max_tokens")
    call = gate.call("a", 10, 80)
    gate.admitted(call)
    gate.ok(call, 10, 5)
    assert gate.status().levels["output_tokens"] == 20


@pytest.mark.parametrize(("counted", "reserved", "charged"), [(True, 400, 420), (False, 100, 70)])
def test_cached_input_counts_or_not(bench: Make, counted: bool, reserved: int, charged: int) -> None:
    """Anthropic does not count what came from its prompt cache: neither before the call nor after it."""
    gate = bench(itpm=60_000, count_cached=counted)
    call = gate.call("a", 400, cached_tokens=300)
    gate.admitted(call)
    assert gate.status().levels["input_tokens"] == 1_000 - reserved
    gate.ok(call, 420, 5, cached_tokens=350)
    assert gate.status().levels["input_tokens"] == 1_000 - charged


# --- once


def test_a_lost_reply_asked_again_is_answered_alike_and_charged_once(bench: Make) -> None:
    """The client sends the same question again: the same claim is admitted still, and waits only for the rest."""
    gate = bench(rpm=600, itpm=60_000)
    gate.admitted(*(gate.call(f"j{n}") for n in range(10)))
    call = gate.call("a", 400)
    gate.admitted(call)
    once = (gate.status().levels, gate.status().live, gate.status().admitted, gate.lineage("a"))
    gate.time.pass_s(0)
    gate.admitted(call)
    assert (gate.status().levels, gate.status().live, gate.status().admitted, gate.lineage("a")) == once
    assert gate.held_ms[-2:] == [100, 100]


def test_a_question_asked_again_clears_away_what_is_over_for_good(bench: Make) -> None:
    """Whoever asks clears up; nothing of that is lost when the answer itself changes nothing."""
    gate = bench(rpm=600)
    call = gate.call("long", lasts_s=600)
    gate.admitted(gate.call("dead", lasts_s=1), call)
    gate.time.pass_s(60)
    gate.admitted(call)
    assert (gate.status().live, gate.status().lost) == (1, 1)
    gate.ok(call, 1, 1)
    assert gate.status().live == 0


def test_a_second_report_changes_nothing(bench: Make) -> None:
    """Whatever it says: an answer after a failure, other headers, a spend cap."""
    gate = bench(rpm=600, itpm=60_000)
    call = gate.call("a", 400)
    gate.admitted(call)
    gate.ok(call, 100, 5)
    settled = gate.status()
    gate.ok(call, 100, 5)
    gate.fails(call, FailureKind.RATE_LIMITED, headers={"x-ratelimit-remaining-requests": "0"})
    gate.fails(call, FailureKind.QUOTA_EXHAUSTED)
    assert gate.status() == settled


def test_a_report_of_a_call_that_nobody_admitted_changes_nothing(bench: Make) -> None:
    """A worker that lost its step says so late, or a mistake."""
    gate = bench(rpm=600)
    before = gate.status()
    gate.fails(gate.call("stranger"), FailureKind.RATE_LIMITED)
    assert gate.status() == before


# --- workers that die


def test_what_a_dead_worker_reserved_returns_by_itself(bench: Make) -> None:
    """After the bound on its call and a grace; it stays charged, for the call may have been made. Nobody has to call."""
    gate = bench(itpm=60_000)
    gate.board.release()
    gate.admitted(gate.call("a", 400, 80, lasts_s=30, lineage_input_tokens=10_000, lineage_output_tokens=1_000))
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
    """The lease said that the worker is dead; the reservation need not wait, and the late report counts nothing."""
    gate = bench(rpm=600)
    dead = gate.call("a", 400, lineage_input_tokens=10_000, lineage_output_tokens=0)
    gate.admitted(dead)
    again = gate.claimed_again(dead, lost=True)
    gate.admitted(again)
    assert (gate.status().live, gate.status().lost, gate.lineage("a")["ri"]) == (1, 1, 400)
    gate.fails(dead, FailureKind.QUOTA_EXHAUSTED)
    assert (gate.status().live, gate.status().blocked_reason) == (1, "")
    gate.ok(again, 300, 5)
    assert (gate.status().live, gate.lineage("a")["ui"]) == (0, 700)


# --- names


def test_models_of_one_pattern_share_one_limit_and_a_name_of_its_own_wins(redis: redis_py.Redis, prefix: str) -> None:
    """`anthropic:claude-sonnet-*` is one bucket for the class; the longest pattern counts."""
    gate = GateBench(
        redis, prefix, {"m:*": limits(rpm=60), "m:sonnet-*": limits(rpm=120), "m:sonnet-5": limits(rpm=180)}
    )
    gate.admitted(gate.call("a", to="m:sonnet-4"), gate.call("b", to="m:opus"), gate.call("c", to="m:sonnet-5"))
    gate.admitted(gate.call("d", to="m:sonnet-4-6"))
    assert {name: gate.status(name).admitted for name in gate.board.names()} == {
        "m:*": 1, "m:sonnet-*": 2, "m:sonnet-5": 1,
    }  # fmt: skip


def test_a_provider_is_counted_as_it_counts_also_when_nobody_named_limits(redis: redis_py.Redis, prefix: str) -> None:
    """Anthropic by what was written and without the cache, OpenAI by `max_tokens`; others as they come."""
    gate = GateBench(redis, prefix, {})
    for name in ("anthropic:m", "openai:m", "jira"):
        gate.admitted(gate.call(name.replace(":", "-"), to=name))
    found = {name: gate.board.limits(name) for name in gate.board.names()}
    assert {name: (at.reserve_output, at.count_cached) for name, at in found.items()} == {
        "anthropic:m": ("expected", False), "jira": ("expected", True), "openai:m": ("max_tokens", True),
    }  # fmt: skip
