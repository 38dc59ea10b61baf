"""Limits that no person has set: guesses from 429s, and what headers name. They pace calls, and never deny one."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import redis as redis_py

from midwatch.orchestration.protocol.calls import Call, Report
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits
from tests.contract.gate_crowd import Answer, Bucket, Crowd
from tests.leakcheck import Key

Make = Callable[..., GateBench]
THROTTLED = FailureKind.RATE_LIMITED


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


def settle(gate: GateBench, call: Call, headers: dict[str, str], used: int = 10) -> None:
    """Report an answer with these headers."""
    gate.gate.settle(call, Report(usage=Usage(input_tokens=used, output_tokens=10), headers=headers))


def answer_calls(gate: GateBench, number: int, tokens: int = 10) -> None:
    """Let this many calls be answered."""
    for n in range(number):
        call = gate.call(f"before-{n}", tokens, 10)
        gate.admit_all(call)
        gate.ok(call, tokens, 10)


# --- stray 429s


@pytest.mark.parametrize(("share", "rpm"), [(0.026, None), (0.026, 6_000), (0.1, 6_000)])
def test_stray_429s_do_not_slow_down_the_fleet(bench: Make, share: float, rpm: float | None) -> None:
    """A share of calls is refused at any rate. Four slots answer nearly four calls a second, with a limit and without one."""
    gate = bench(rpm=rpm)
    chance = random.Random(7)

    def provider(call: Call, at_s: float) -> Answer:
        return Answer.bad(THROTTLED) if chance.random() < share else Answer.good()

    crowd = Crowd(gate, provider, slots=4)
    crowd.submit(*(gate.call(f"j{n}") for n in range(260)))
    crowd.run(60)
    assert len(crowd.done) >= 0.9 * 240
    assert crowd.ended == []


def test_one_429_among_answered_calls_changes_nothing(bench: Make) -> None:
    """Other calls are answered at the same rate, so the limit is not exceeded. Only the refused call waits."""
    gate = bench()
    answer_calls(gate, 50)
    calls = [gate.call(f"j{n}") for n in range(3)]
    gate.admit_all(*calls)
    gate.ok(calls[0], 10, 10)
    gate.fail(calls[1], THROTTLED)
    status = gate.status()
    assert (status.limits, status.guessed, status.paused_ms, status.rate_factor) == ({}, False, 0, 1.0)


def test_a_retry_after_among_answered_calls_pauses_and_cuts_nothing(bench: Make) -> None:
    """The server says how long to wait, so all calls wait. One 429 is no evidence of a limit."""
    gate = bench()
    answer_calls(gate, 50)
    call = gate.call("a")
    gate.admit_all(call, gate.call("b"))
    assert gate.fail(call, THROTTLED, retry_after_s=3).closed_ms == 3_000
    gate.time.pass_s(5)
    assert (gate.status().limits, gate.status().rate_factor) == ({}, 1.0)


def test_a_hidden_limit_is_found_beside_stray_429s(bench: Make) -> None:
    """429s that rise with the rate come from a limit. The fleet keeps to it, and uses most of it."""
    gate = bench()
    chance, bucket = random.Random(3), Bucket(600, depth=10)

    def provider(call: Call, at_s: float) -> Answer:
        return Answer.bad(THROTTLED) if chance.random() < 0.03 else bucket(call, at_s)

    crowd = Crowd(gate, provider, slots=16)
    crowd.submit(*(gate.call(f"j{n}") for n in range(800)))
    crowd.run(60)
    assert gate.status().guessed
    assert len(crowd.done) >= 0.8 * 600
    assert len(crowd.sent) <= 1.25 * len(crowd.done)


def test_a_waiting_step_says_that_the_limit_is_guessed(bench: Make) -> None:
    """Its reason has the guess, so that a person can set the limit that is known."""
    gate = bench()
    crowd = Crowd(gate, Bucket(120, depth=2), slots=8)
    crowd.submit(*(gate.call(f"j{n}") for n in range(200)))
    crowd.run(30)
    assert gate.status().guessed
    answer = gate.gate.admit(gate.call("late"))
    assert isinstance(answer, Defer)
    assert "limit guessed: " in answer.reason
    guess = int(gate.status().limits["requests"])
    assert f"{guess:,} a minute" in answer.reason


# --- limits from headers


@pytest.mark.parametrize(
    "headers",
    [
        {"anthropic-ratelimit-input-tokens-limit": "1000"},
        {"x-ratelimit-limit-tokens": "1000"},
        {"anthropic-ratelimit-output-tokens-limit": "5"},
    ],
    ids=["input", "both", "output"],
)
def test_a_limit_of_a_header_denies_no_call(bench: Make, headers: dict[str, str]) -> None:
    """A call that is larger than a minute of the limit waits for a full bucket, and starts."""
    gate = bench()
    call = gate.call("a", 10, 1)
    gate.admit_all(call)
    gate.gate.settle(call, Report(usage=Usage(input_tokens=10, output_tokens=1), headers=headers))
    assert gate.status().limits
    large = gate.call("large", 50_000, 2_000)
    answer = gate.gate.admit(large)
    assert not isinstance(answer, Failure)
    if answer is not None:
        gate.time.pass_s(61)
        assert [ref.job_id for ref in gate.board.release()[0]] == ["large"]
        gate.admit_all(gate.claim_again(large))


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-limit-requests", "0"),
        ("x-ratelimit-limit-requests", "-5"),
        ("x-ratelimit-limit-requests", "999999999999"),
        ("anthropic-ratelimit-requests-limit", "49"),
        ("x-ratelimit-limit-tokens", "900"),
        ("anthropic-ratelimit-input-tokens-limit", "499"),
        ("anthropic-ratelimit-output-tokens-limit", "0"),
    ],
)
def test_a_limit_below_what_has_just_passed_is_not_believed(bench: Make, header: str, named: str) -> None:
    """Fifty calls of 10 + 10 tokens were answered within the minute. A limit that is zero, negative or absurd counts as none."""
    gate = bench()
    answer_calls(gate, 50)
    call = gate.call("a", 10, 10)
    gate.admit_all(call)
    remaining = header.replace("limit-requests", "remaining-requests").replace("-limit", "-remaining")
    settle(gate, call, {header: named, remaining: "0"})
    assert gate.status().limits == {}
    gate.admit_all(*(gate.call(f"next-{n}") for n in range(20)))


def test_a_token_limit_below_one_answered_call_is_not_believed(bench: Make) -> None:
    """The call itself shows that the limit is wrong."""
    gate = bench()
    call = gate.call("a", 5_000, 10)
    gate.admit_all(call)
    settle(gate, call, {"anthropic-ratelimit-input-tokens-limit": "1000"}, used=5_000)
    assert gate.status().limits == {}


def test_a_limit_in_force_ends_when_twice_as_much_passes(bench: Make) -> None:
    """A bucket saves up at most a minute. What is named again after that was wrong from the start."""
    gate = bench()
    header = {"anthropic-ratelimit-input-tokens-limit": "1000"}
    first, large = gate.call("a", 10, 10), gate.call("large", 5_000, 10)
    gate.admit_all(first, large)
    settle(gate, first, header)
    assert gate.status().limits == {"input_tokens": 1_000}
    settle(gate, large, header, used=5_000)
    assert gate.status().limits == {}


def test_a_lower_limit_is_believed_after_a_quiet_minute(bench: Make) -> None:
    """What passed earlier says nothing about the present limit."""
    gate = bench()
    answer_calls(gate, 50)
    gate.time.pass_s(61)
    call = gate.call("a", 10, 10)
    gate.admit_all(call)
    settle(gate, call, {"x-ratelimit-limit-requests": "10"})
    assert gate.status().limits == {"requests": 10}
