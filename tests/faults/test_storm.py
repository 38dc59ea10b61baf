"""The storm on a real fleet: requests to a failing downstream, counted in the downstream's own journal.

`midwatch bench storm`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from midwatch.workers.bench.storm_real import run as storm_run
from midwatch.workers.bench.storm_real.course import Limit, Throttle, Trouble
from midwatch.workers.bench.storm_real.figures import compute_figures, most_in_window
from midwatch.workers.bench.storm_real.plan import Calls, Scenario
from midwatch.workers.bench.storm_real.server import Arrival

SLOW = [pytest.mark.slow, pytest.mark.timeout(1_800)]


def assert_nothing_lost_or_repeated(found: dict[str, Any]) -> None:
    """Every call was answered once, every job completed, and the run was not stopped early."""
    assert (found["lost"], found["repeated"], found["jobs_lost"], found["in_time"]) == (0, 0, 0, True), found


def assert_drained_in_time(found: dict[str, Any]) -> None:
    """The drain takes the time at the limit plus at most 15 % and 25 s, for breaker, slow start and the last lineage."""
    assert found["drain_s"] <= 1.15 * found["ideal_drain_s"] + 25, found


def test_an_outage_makes_no_storm() -> None:
    """A few calls notice the outage, all others wait, and all complete after it.

    The test only counts. Requests a second and drain time are in the slow tests, because they need a quiet machine.
    """
    found = storm_run.run(lineages=6, outage_s=6.0, naive=False)
    assert_nothing_lost_or_repeated(found)
    assert found["amplification"] <= 1.08, found


def test_nothing_is_sent_before_a_retry_after_has_passed() -> None:
    """All 60 calls in flight are refused at once, for 4 s. No call is sent before that time."""
    found = storm_run.run(lineages=60, outage_s=4.0, scenario="retry_after", naive=False)
    assert_nothing_lost_or_repeated(found)
    assert found["answers"] == {"200": 60, "429": 60}
    assert found["in_trouble"] == 0, found


@pytest.mark.parametrize("calls", [pytest.param("tool", marks=SLOW), pytest.param("model", marks=SLOW)])
def test_a_minute_of_outage_causes_few_extra_requests(calls: Calls) -> None:
    """There are at most 1.05 requests a call, and 1.15 times the limit in any second, for HTTP tools and through an SDK."""
    lineages, limit_per_s = (40, 40.0) if calls == "tool" else (25, 25.0)
    found = storm_run.run(lineages=lineages, limit_per_s=limit_per_s, calls=calls, naive=False)
    assert_nothing_lost_or_repeated(found)
    assert_drained_in_time(found)
    assert found["amplification"] <= 1.05, found
    assert found["recovery_peak_per_s"] <= 1.15 * found["limit_per_s"], found


@pytest.mark.parametrize("scenario", [pytest.param("random", marks=SLOW), pytest.param("double", marks=SLOW)])
def test_partial_failure_and_a_wrong_limit_cause_few_extra_requests(scenario: Scenario) -> None:
    """A minute in which 30 % of all calls fail costs at most 1.15 requests a call. A limit set twice too high costs 1.10."""
    found = storm_run.run(lineages=80 if scenario == "random" else 40, scenario=scenario, naive=False)
    assert_nothing_lost_or_repeated(found)
    assert_drained_in_time(found)
    assert found["amplification"] <= (1.15 if scenario == "random" else 1.10), found


@pytest.mark.slow
def test_five_hundred_calls_wait_for_a_retry_after_of_20_s() -> None:
    """No request is sent before it has passed, and every second after it is within the limit."""
    found = storm_run.run(lineages=500, scenario="retry_after", naive=False)
    assert_nothing_lost_or_repeated(found)
    assert found["answers"] == {"200": 500, "429": 500}
    assert found["in_trouble"] == 0, found
    assert found["recovery_peak_per_s"] <= 1.15 * found["limit_per_s"], found


@pytest.mark.slow
def test_the_same_load_storms_with_autoretry_for() -> None:
    """The negative control: plain Celery floods the recovering downstream, or gives up calls. So the load is a real storm."""
    found = storm_run.run(lineages=20, outage_s=20.0)
    assert found["naive"]["amplification"] > 1.5 > found["amplification"]
    assert found["naive"]["recovery_peak_per_s"] > 2 * found["limit_per_s"]
    assert found["naive_default"]["lost"] > 0 == found["lost"]


def test_lost_and_repeated_calls_are_counted() -> None:
    """The figures come from the journal alone: a call without a 200 is lost, and a second 200 is a repetition."""
    journal = [Arrival(0.5, "a", 200), Arrival(1.0, "b", 529), Arrival(2.0, "b", 200), Arrival(2.5, "b", 200)]
    found = compute_figures([*journal, Arrival(3.0, "c", 429)], logical=3, limit_per_s=2.0, from_s=0.9, to_s=1.5)
    expected = {"lost": 1, "repeated": 1, "in_trouble": 1, "refused_at_first": 2, "recovery_peak_per_s": 2}
    assert found.items() >= {**expected, "drain_s": None, "ideal_drain_s": 1.0, "amplification": 1.667}.items()
    assert compute_figures(journal, logical=2, limit_per_s=2.0, from_s=0.9, to_s=1.5)["drain_s"] == 1.0


@pytest.mark.parametrize(("moments", "most"), [([], 0), ([3.0], 1), ([0.0, 0.9, 1.0, 1.8, 2.7], 3), ([5.0] * 4, 4)])
def test_a_peak_is_found_in_any_second_of_time(moments: list[float], most: int) -> None:
    """A second may begin at any moment. A burst could hide across the borders of whole seconds."""
    assert most_in_window(moments) == most


def statuses_at(course: Trouble | Throttle, moments: list[float]) -> list[int]:
    """Return the statuses of requests that arrive at these times."""

    async def ask() -> list[int]:
        answers = await asyncio.gather(*(course.answer(at_s, f"call-{n}") for n, at_s in enumerate(moments)))
        return [answer.status for answer in answers]

    return asyncio.run(ask())


def test_the_downstream_enforces_its_limit_and_its_outage() -> None:
    """The simulated downstream sends a 529 during the whole outage.

    At other times its bucket holds one second of calls, and a refusal has a Retry-After.
    """
    trouble = Trouble(Limit(2.0), begins_s=10.0, ends_s=20.0)
    assert statuses_at(trouble, [0.0, 0.0, 0.0, 0.5, 9.9, 10.0, 19.9, 20.0]) == [200, 200, 429, 200, 200, 529, 529, 200]
    assert Limit(0.25).answer(0.0).status == 200
    limit = Limit(0.25)
    assert [limit.answer(0.0).retry_after_s, limit.answer(1.0).retry_after_s] == [None, 3]


def test_the_downstream_refuses_all_held_calls_at_once() -> None:
    """The simulated downstream holds calls, and refuses all of them when the last one has arrived.

    It also refuses calls before the Retry-After ends. Later calls only have its limit.
    """
    throttle = Throttle(Limit(2.0), held=3)
    assert statuses_at(throttle, [0.0, 1.0, 2.0, 21.9, 22.0]) == [429, 429, 429, 429, 200]
    assert throttle.trouble() == (2.0, 22.0)
