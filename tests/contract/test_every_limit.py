"""The walk over `Limits`: each field changes what the coordinator does. A new field without an entry fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import redis as redis_py

from midwatch.schemas.failure import FailureKind
from midwatch.schemas.limits import Limits
from midwatch.schemas.step import Priority
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench

Scenario = Callable[[GateBench], list[Any]]


@pytest.fixture
def extra_keys() -> tuple[Any, ...]:
    """The clock of the test."""
    return (CLOCK_KEY,)


def burst(gate: GateBench) -> list[Any]:
    """Calls at one moment, and again a second later, until one must wait. Each uses less than it reserved."""
    answers = []
    for _ in range(2):
        for _ in range(40):
            call = gate.call(f"j{len(answers)}", tokens=200, output=100, cached_tokens=150)
            answers.append(gate.ask(call))
            if answers[-1] == "admitted":
                gate.ok(call, 200, 20, cached_tokens=150)
        gate.time.pass_s(1)
    return answers


def line(gate: GateBench) -> list[Any]:
    """The order in which waiting calls of two tenants and of three priorities start."""
    kinds = [(tenant, priority) for tenant in ("a", "b") for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW)]
    calls = {}
    for n in range(60):
        tenant, priority = kinds[n % len(kinds)]
        call = gate.call(f"{tenant}-{priority}-{n}", tokens=100, tenant=tenant, priority=priority)
        calls[call.claim.ref.job_id] = call
        gate.ask(call)
    started = []
    for _ in range(8):
        gate.time.pass_s(1)
        for ref in gate.board.release()[0]:
            started.append(ref.job_id)
            gate.ask(gate.claim_again(calls[ref.job_id]))
    return started


def retries(gate: GateBench) -> list[Any]:
    """All calls of a downstream fail, and half of them are retries. What is seen after each half second."""
    seen: list[Any] = []
    for half_second in range(40):
        for n in range(6):
            call = gate.call(f"j{half_second}-{n}", tokens=10, attempt=n % 2)
            seen.append(gate.ask(call))
            if seen[-1] == "admitted" and (half_second > 4 or n % 3):
                gate.fail(call, FailureKind.OVERLOADED)
            elif seen[-1] == "admitted":
                gate.ok(call, 10)
        seen.append(gate.status().retries_left)
        gate.time.pass_s(0.5)
    return seen


def end_calls(gate: GateBench, *, good: int = 0, bad: int = 0) -> list[str]:
    """Make calls that succeed, and then calls that fail. Returns the answers of the coordinator."""
    calls = [gate.call(f"j{gate.time.us}-{n}") for n in range(good + bad)]
    answers = [gate.ask(call) for call in calls]
    for n, call in enumerate(calls):
        if answers[n] == "admitted":
            gate.ok(call, 10) if n < good else gate.fail(call, FailureKind.OVERLOADED)
    return answers


def breaker(gate: GateBench) -> list[Any]:
    """What opens the breaker, for how long it stays open, how many probe, and how the rate grows afterwards."""
    seen: list[Any] = []
    for good, bad, later_bad in ((8, 12, 0), (0, 9, 9), (0, 4, 0)):
        gate.wipe()
        gate.warm()
        end_calls(gate, good=good, bad=bad)
        gate.time.pass_s(15 if later_bad else 0)
        end_calls(gate, bad=later_bad)
        seen.append(gate.status().breaker)
    end_calls(gate, bad=30)
    for bad in (*[1] * 12, 20, 0, 0, 0):
        status = gate.status()
        seen.append((status.breaker, round(status.open_ms), round(status.rate_factor, 3)))
        gate.time.pass_s(status.open_ms / 1_000 + 2)
        seen.append(end_calls(gate, good=0 if bad else 20, bad=bad))
    for _ in range(10):
        gate.time.pass_s(1)
        seen.append(round(gate.status().rate_factor, 3))
    return seen


def throttled(gate: GateBench) -> list[Any]:
    """A 429 with a very long Retry-After, and then the rate after it is over."""
    call = gate.call()
    gate.ask(call)
    gate.fail(call, FailureKind.RATE_LIMITED, retry_after_s=100_000)
    seen: list[Any] = [gate.status().paused_ms]
    gate.board.resume(SHOP)
    for _ in range(20):
        gate.time.pass_s(1)
        seen.append(round(gate.status().rate_factor, 3))
    return seen


WALK: Mapping[str, tuple[Scenario, Mapping[str, Any], Any]] = {
    # field: what happens, the other limits, another value than the default
    "requests_per_minute": (burst, {}, 60),
    "input_tokens_per_minute": (burst, {}, 12_000),
    "output_tokens_per_minute": (burst, {}, 6_000),
    "tokens_per_minute": (burst, {}, 12_000),
    "burst_s": (burst, {"rpm": 60}, 10.0),
    "reserve_output": (burst, {"otpm": 6_000, "burst_s": 5.0}, "none"),
    "count_cached": (burst, {"itpm": 60_000, "burst_s": 5.0}, False),
    "headroom": (burst, {"rpm": 600, "burst_s": 2.0}, 0.5),
    "priority_weights": (line, {"rpm": 120}, {"high": 1.0, "normal": 1.0, "low": 50.0}),
    "tenant_weights": (line, {"rpm": 120}, {"b": 20.0}),
    "fail_ratio": (breaker, {"rpm": 60_000, "trial_gap_s": 0, "failures_in_a_row": 1_000}, 0.0),
    "min_calls": (breaker, {"rpm": 60_000, "trial_gap_s": 0, "failures_in_a_row": 1_000}, 2),
    "failures_in_a_row": (breaker, {"rpm": 60_000, "trial_gap_s": 0}, 3),
    "window_s": (breaker, {"rpm": 60_000, "trial_gap_s": 0, "failures_in_a_row": 1_000}, 60.0),
    "open_s": (breaker, {"rpm": 60_000, "trial_gap_s": 0}, 5.0),
    "open_max_s": (breaker, {"rpm": 60_000, "trial_gap_s": 0}, 3.0),
    "probes": (breaker, {"rpm": 60_000, "trial_gap_s": 0}, 1),
    "ramp_s": (breaker, {"rpm": 60_000, "trial_gap_s": 0}, 30.0),
    "trial_gap_s": (retries, {}, 3.0),
    "recover_s": (throttled, {"rpm": 600}, 600.0),
    "cut": (throttled, {"rpm": 600}, 0.2),
    "retry_ratio": (retries, {"trial_gap_s": 0}, 1.0),
    "retry_floor_per_s": (retries, {"trial_gap_s": 0}, 50.0),
    "pause_max_s": (throttled, {}, 60.0),
}


def test_every_limit_has_an_entry() -> None:
    """An entry for a field that is gone fails too."""
    assert set(WALK) == set(Limits.model_fields)


@pytest.mark.parametrize("field", WALK)
def test_the_limit_has_an_effect(redis: redis_py.Redis, prefix: str, field: str) -> None:
    """With another value, the same calls get other answers, or the downstream another state."""
    scenario, others, value = WALK[field]
    seen = []
    for number, given in enumerate(({}, {field: value})):
        gate = GateBench(redis, prefix, {SHOP: Limits.model_validate({**others, **given})}, version=number + 1)
        gate.warm()
        seen.append(scenario(gate))
        gate.wipe()
    assert seen[0] != seen[1]


@pytest.mark.parametrize("scenario", [burst, line, retries, throttled])
def test_the_same_limits_twice_look_the_same(redis: redis_py.Redis, prefix: str, scenario: Scenario) -> None:
    """So a difference comes from the field, and not from the order of the runs."""
    seen = []
    for number in range(2):
        gate = GateBench(redis, prefix, {SHOP: Limits.model_validate({"rpm": 120})}, version=number + 1)
        gate.warm()
        seen.append(scenario(gate))
        gate.wipe()
    assert seen[0] == seen[1]
