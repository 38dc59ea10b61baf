"""The storm, simulated: the real coordinator in virtual time reaches its targets, and naive retries do not.

The size is a fifth of `midwatch bench storm --simulate`: 40 lineages, 2,920 logical calls, limits in proportion.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from statistics import median

import pytest

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.failure import FailureKind
from midwatch.workers.bench.storm_simulated import run_simulation, simulate
from midwatch.workers.bench.storm_simulated.figures import Figures
from midwatch.workers.bench.storm_simulated.provider import Provider, ProviderModel
from midwatch.workers.bench.storm_simulated.scenarios import SCENARIOS
from midwatch.workers.bench.storm_simulated.simulation import Process, Simulation, Slots
from midwatch.workers.bench.storm_simulated.strategies import STRATEGIES
from midwatch.workers.bench.storm_simulated.targets import find_missed

SHARE = 0.2
SMALL = {name: scenario.scaled(SHARE) for name, scenario in SCENARIOS.items()}

Run = Callable[[str, str], Figures]


@pytest.fixture(scope="module")
def run(server) -> Run:
    """Run a scenario with a strategy. A result is reused if the same run was made before."""

    @cache
    def once(scenario: str, strategy: str) -> Figures:
        return simulate(SMALL[scenario], strategy, 0, server.url)

    return once


# The product


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_coordinated_fleet_keeps_its_targets(run: Run, name: str):
    """In every kind of outage there are few calls, no peak above the limit, a drain in time, and no lost or repeated call."""
    assert find_missed(SMALL[name], run(name, "midwatch")) == []


@pytest.mark.parametrize("name", ["tight", "tight_charged", "brownout", "partial"])
def test_a_limit_set_twice_too_high_costs_little(run: Run, name: str):
    """The provider's 429s teach the fleet the real limit."""
    assert find_missed(SMALL[name], run(name, "midwatch-2x"), limit_is_right=False) == []


def test_a_hang_is_overcome_sooner_than_by_naive_retries(server):
    """Naive calls that hang still hold the workers after the recovery. Ours were never sent.

    Medians of three seeds, because a probe that ends just before the recovery costs seconds.
    """

    def drain_s(strategy: str) -> float:
        return median(simulate(SMALL["hang_70"], strategy, seed, server.url).drain_s for seed in range(3))

    ours = drain_s("midwatch")
    assert ours < min(drain_s(strategy) for strategy in STRATEGIES)


def test_in_a_partial_failure_no_strategy_is_faster_with_as_few_calls(run: Run):
    """Each attempt is equally likely to fail, so calls and drain time are a trade-off: calls not made in the outage must
    follow it. The fleet stays near the least possible time, and naive strategies with as few calls are as slow.
    """
    ours = run("partial", "midwatch")
    assert ours.drain_s < ours.drain_least_s + 25
    frugal = [
        figures for name in STRATEGIES if (figures := run("partial", name)).per_completed < ours.per_completed + 0.05
    ]
    assert all(figures.drain_s > ours.drain_s for figures in frugal)


def test_the_same_seed_gives_the_same_figures(server):
    """A run uses neither this machine's clock nor unseeded randomness. Another seed gives another run."""
    scenario = SCENARIOS["brownout"].scaled(0.05)
    first, again, other = (simulate(scenario, "midwatch", seed, server.url) for seed in (1, 1, 2))
    assert first == again
    assert first != other


# Comparisons


def test_naive_retries_storm(run: Run):
    """Without a coordinator the same load exceeds a tight limit, or loses its work."""
    flood = run("tight", "celery-backoff-unlimited")
    assert flood.amplification > 4
    assert flood.recovery_peak > 4
    assert run("tight", "celery-backoff").lost_lineages > SMALL["tight"].load.lineages * 0.9
    assert run("ample", "aws-standard").lost_lineages > 0
    assert run("tight", "exponential-6-nested").repeated > 0


def test_jitter_alone_never_recovers_if_refusals_cost_quota(run: Run):
    """An hour after the outage most of the work is still not done, although every call is retried until it succeeds."""
    stuck = run("tight_charged", "full-jitter-unlimited")
    assert stuck.drain_s == float("inf")
    assert stuck.lost_lineages > SMALL["tight_charged"].load.lineages / 2


# Parts of the simulator


def test_a_provider_serves_its_limit_and_sends_a_retry_after():
    """The provider's bucket holds one second. After the Retry-After of a refused call there is room."""
    simulation = Simulation()
    provider = Provider(ProviderModel(10, outage_from_s=1e9), simulation, random.Random(0))
    answers = [provider.call() for _ in range(12)]
    assert [answer.failure for answer in answers] == [None] * 10 + [FailureKind.RATE_LIMITED] * 2
    simulation.call_later(float(answers[-1].retry_after_s or 0), lambda: None)
    simulation.run(until_s=60)
    assert provider.call().failure is None


def test_slots_are_given_in_the_order_of_requests():
    """The order is that of messages in a queue. A process that ends passes its result to the process that waits for it."""
    simulation, slots, order = Simulation(), Slots(1), list[int]()

    def work(number: int) -> Process[bool]:
        yield slots.take
        yield 1.0
        order.append(number)
        slots.give_back()
        return number != 2

    def all_of_them() -> Process[bool]:
        return (yield from simulation.run_together([work(number) for number in range(4)]))

    results = list[bool]()
    simulation.start(all_of_them(), results.append)
    simulation.run(until_s=60)
    assert order == [0, 1, 2, 3]
    assert results == [False]
    assert simulation.now_s == 4.0


def test_the_result_is_a_document():
    """Rows contain the figures by name, as JSON without NaN. Each result is printed during the run."""
    said = list[str]()
    result = run_simulation(scenarios=["hang"], seeds=2, strategies=["celery-backoff", "immediate-3"], say=said.append)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert [(row["scenario"], row["strategy"]) for row in result["rows"]] == [
        ("hang", "celery-backoff"),
        ("hang", "immediate-3"),
    ]
    assert all(row["lost_calls"] == 0 and 0 < row["drain_s"] < row["drain_bound_s"] for row in result["rows"])
    assert said == ["hang: celery-backoff", "hang: immediate-3"]


@pytest.mark.parametrize("wrong", [{"scenarios": ["tigth"]}, {"strategies": ["hope"]}])
def test_an_unknown_name_is_refused_with_the_known_ones(wrong: dict[str, list[str]]):
    """A run with an unknown name is refused before anything starts."""
    with pytest.raises(ConfigError, match=r"there are: (ample|midwatch), "):
        run_simulation(**wrong)
