"""Letters heal themselves on a real fleet: an outage makes letters, the provider comes back, and later a cause stays."""

from __future__ import annotations

import pytest

from midwatch.orchestration.client.letters.replay_window import PROBES
from midwatch.workers.bench.replay.plan import Plan
from midwatch.workers.bench.replay.run import run


@pytest.mark.slow
def test_letters_of_an_outage_complete_and_a_cause_that_stays_stops() -> None:
    """No human does anything. No call is made twice, no second exceeds the limit, and no live job is lost."""
    plan = Plan(letters=40, limit_per_s=50, alone_s=2, staying=12)
    figures = run(plan)
    assert figures["letters_when_back"] >= plan.letters - PROBES
    assert figures["letters_left"] == 0
    assert figures["redriven"] >= plan.letters
    assert figures["calls"] == figures["calls_needed"]
    assert figures["peak_per_s"] <= 1.15 * plan.limit_per_s
    assert figures["live_jobs_lost"] == 0
    assert figures["staying_replayed"] == PROBES
    assert figures["staying_calls"] <= 4 * PROBES
