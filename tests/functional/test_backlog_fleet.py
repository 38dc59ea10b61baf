"""A backlog on a real fleet: jobs end before others begin, and nothing is paid for twice."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.workers.bench.backlog import run
from midwatch.workers.bench.backlog.plan import Plan

PLAN = Plan(jobs=40, turns=5, slots=4, call_s=0.05, others=2)


def test_a_backlog_begins_only_as_many_jobs_as_there_are_slots() -> None:
    """Forty jobs of five turns at once on four slots: all complete with the calls that they need, four at a time."""
    found = run.run_fleet(PLAN, wave=None)
    assert found["ended"] == {"completed": 42}
    assert found["paid_calls"] == found["needed_calls"] == 210
    assert found["most_begun"] <= PLAN.slots + 2
    assert found["others_wait_s"] < found["first_wait_s"], "the second tenant does not wait for the whole first one"


@pytest.mark.slow
def test_without_lists_of_their_own_first_steps_begin_all_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: with first steps among the others, every job begins before one of them ends."""

    def make_client(settings: Any) -> Any:
        client = real(settings)
        monkeypatch.setattr(client.store._dispatcher, "first_queue", lambda _: None)
        return client

    real = run.make_client
    monkeypatch.setattr(run, "make_client", make_client)
    assert run.run_fleet(PLAN, wave=None)["most_begun"] > PLAN.jobs / 2
