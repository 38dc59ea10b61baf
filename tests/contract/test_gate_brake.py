"""The brake: a downstream whose calls partly fail gets fewer calls for a while, in proportion to the share that it answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis as redis_py

from midwatch.orchestration.keyspace import Key
from midwatch.orchestration.protocol.calls import Call
from midwatch.schemas.failure import FailureKind
from tests.contract.gate_bench import CLOCK_KEY, SHOP, GateBench, limits
from tests.contract.gate_crowd import Answer, Crowd

TROUBLE_S = 10
BRAKED_S = 90

Make = Callable[..., Crowd]


@pytest.fixture
def extra_keys() -> tuple[Key, ...]:
    return (CLOCK_KEY,)


@pytest.fixture
def crowd(redis: redis_py.Redis, prefix: str) -> Make:
    """Calls to a warm downstream. Every third call fails at once, from `TROUBLE_S` to `until_s`."""

    def make(calls: int, until_s: float = 1e9, slots: int = 1_000, **fields: object) -> Crowd:
        bench = GateBench(redis, prefix, {SHOP: limits(**fields)})
        bench.warm()
        numbers = iter(range(1_000_000))

        def provider(call: Call, at_s: float) -> Answer:
            fails = TROUBLE_S <= at_s < until_s and next(numbers) % 3 == 0
            return Answer.bad(FailureKind.OVERLOADED) if fails else Answer.good(after_s=1)

        crowd = Crowd(bench, provider, slots=slots)
        crowd.submit(*(bench.call(f"j{n}") for n in range(calls)))
        return crowd

    return make


def calls_per_second(crowd: Crowd, from_s: int, to_s: int) -> float:
    """Return the calls a second that reached the provider."""
    return sum(crowd.calls_per_second()[from_s:to_s]) / (to_s - from_s)


def test_a_partly_failing_downstream_gets_fewer_calls_until_it_recovers(crowd: Make) -> None:
    """When two thirds are answered, it gets four ninths of the rate. Soon after the trouble ends it gets the whole rate."""
    shop = crowd(1_200, until_s=40, rpm=1_200)
    shop.run(35)
    assert calls_per_second(shop, 3, 10) == pytest.approx(20, rel=0.05)
    assert calls_per_second(shop, 25, 35) == pytest.approx(20 * 4 / 9, rel=0.1)
    status = shop.bench.status()
    assert (status.breaker, status.sick, status.limits["requests"]) == ("closed", True, 1_200)
    assert status.rate_factor == pytest.approx(4 / 9, abs=0.06)
    shop.run(55)
    assert calls_per_second(shop, 45, 55) == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize("fields", [{"rpm": 12_000}, {}])
def test_the_brake_reduces_the_measured_rate_not_the_limit(crowd: Make, fields: dict[str, float]) -> None:
    """Twenty workers make twenty calls a second. The brake starts from that rate, with a far higher limit or none."""
    shop = crowd(1_200, slots=20, **fields)
    shop.run(35)
    assert calls_per_second(shop, 3, 10) == pytest.approx(20, rel=0.05)
    assert calls_per_second(shop, 25, 35) < 15, "about 30 without a brake, because failures are quick"
    assert shop.bench.status().rate_factor < 0.5


def test_the_brake_ends_after_ninety_seconds_of_trouble(crowd: Make) -> None:
    """After ninety seconds the downstream gets its whole rate again: in an hour of trouble, waiting saves no call."""
    shop = crowd(3_000, rpm=1_200)
    shop.run(TROUBLE_S + BRAKED_S + 25)
    assert calls_per_second(shop, TROUBLE_S + BRAKED_S - 10, TROUBLE_S + BRAKED_S) < 12
    assert calls_per_second(shop, TROUBLE_S + BRAKED_S + 10, TROUBLE_S + BRAKED_S + 25) == pytest.approx(20, rel=0.05)
    assert shop.bench.status().sick


def test_few_calls_are_not_braked(crowd: Make) -> None:
    """Five calls a second are no storm. The brake would leave almost none of them."""
    shop = crowd(400, rpm=300)
    shop.run(40)
    assert calls_per_second(shop, 20, 40) == pytest.approx(5, rel=0.05)
