"""After Redis has lost its data, workers log it, and a call that may not run twice does not run again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from midwatch import Agent, tool
from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.keyspace import partition
from midwatch.orchestration.store.damage import data_watch
from midwatch.orchestration.store.damage.data_watch import DataWatch, read_mark
from midwatch.orchestration.testing.inline_fleet import InlineFleet
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import ToolMessage
from midwatch.testing import ScriptedModel, call

PAID: list[int] = []


@tool
def pay(n: int) -> str:
    """Pay an amount. It may not run twice."""
    PAID.append(n)
    return f"paid {n}"


AGENT = Agent("payer", "scripted:m-1", "You pay.", tools=[pay])


class Watched(InlineFleet):
    """A fleet whose process watches the data, as a worker does."""

    def __init__(self) -> None:
        super().__init__(AGENT, model=ScriptedModel([[call("pay", n=1)], "done"] * 2))
        self.watch = DataWatch(self.client, self.store.keys)
        services = self.runner.services
        services.note_begin, services.look_at_data = self.watch.note_begin, self.watch.look
        self.watch.look(now=True)

    def enqueue_keyed(self) -> str:
        """Enqueue with an idempotency key, as a producer that tries again."""
        job = new_job(AGENT, "pay 1", idempotency_key="order-1")
        self.store.enqueue(job)
        return job.job_id


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Watched:
    PAID.clear()
    monkeypatch.setattr(data_watch, "LOOK_S", 0.0)
    return Watched()


def events(logs: list[Any]) -> list[str]:
    return [entry["event"] for entry in logs if entry["event"].startswith("data.")]


def results(fleet: Watched, job_id: str) -> list[str]:
    return [message.content for message in fleet.messages(job_id) if isinstance(message, ToolMessage)]


def test_a_call_is_not_repeated_after_all_data_were_lost(fleet: Watched) -> None:
    """The payment ran, Redis was flushed, the producer tries again with its key. The model reads that the outcome is unknown."""
    assert fleet.run(fleet.enqueue_keyed()).status is JobStatus.COMPLETED
    assert PAID == [1]
    fleet.client.flushall()
    with capture_logs() as logs:
        job_id = fleet.enqueue_keyed()
        result = fleet.run(job_id)
    assert events(logs) == ["data.lost"]
    assert (result.status, PAID) == (JobStatus.COMPLETED, [1])
    (content,) = results(fleet, job_id)
    assert content.startswith("The outcome of this call is unknown")
    mark = read_mark(fleet.client, fleet.store.keys)
    assert mark
    assert mark.lost_ms > 0


def test_a_call_whose_claim_a_failover_forgot_is_unknown(fleet: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new server lacks the claim and the result of the call. Its row says that it never began."""
    job_id = fleet.enqueue_keyed()
    fleet.runner.run(fleet.published.popleft())
    ref = fleet.published[0]
    names = fleet.store.keys
    copies = {key: fleet.client.dump(key) for key in fleet.client.scan_iter()}
    fleet.runner.run(fleet.published.popleft())
    assert PAID == [1]
    for key in list(fleet.client.scan_iter()):
        if key != names.data_mark().encode():
            fleet.client.delete(key)
    for key, copy in copies.items():
        if key != names.data_mark().encode():
            fleet.client.restore(key, 0, copy, replace=True)
    monkeypatch.setattr(DataWatch, "_read_server", lambda self: "another server")
    fleet.published.clear()
    fleet.published.append(ref)
    with capture_logs() as logs:
        fleet.run(job_id)
    assert events(logs) == ["data.other_server"]
    assert PAID == [1]
    assert results(fleet, job_id)[0].startswith("The outcome of this call is unknown")


def test_a_restart_that_lost_nothing_changes_no_call(fleet: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another `run_id` alone is no loss, because the rows still have the fences. The job goes on, and its result is
    known."""
    job_id = fleet.enqueue_keyed()
    fleet.runner.run(fleet.published.popleft())
    fleet.runner.run(fleet.published.popleft())
    monkeypatch.setattr(DataWatch, "_read_server", lambda self: "another server")
    with capture_logs() as logs:
        assert fleet.run(job_id).output == "done"
    assert events(logs) == ["data.other_server"]
    assert results(fleet, job_id) == ["paid 1"]


def test_a_worker_that_knows_nothing_says_nothing(fleet: Watched) -> None:
    """A new worker on an empty server is the beginning of a fleet, not a loss. A quiet fleet logs nothing."""
    with capture_logs() as logs:
        other = DataWatch(fleet.client, fleet.store.keys)
        assert not any(watch.look(now=True) for watch in (other, fleet.watch, other))
    assert events(logs) == []


def test_each_worker_reports_what_it_has_begun(fleet: Watched) -> None:
    """The first worker that notices a loss writes a new mark. The other workers see a new mark, and report, too."""
    other = DataWatch(fleet.client, fleet.store.keys)
    other.look(now=True)
    job_id = fleet.enqueue_keyed()
    fleet.run(job_id)
    fleet.client.flushall()
    assert other.look(now=True)
    assert fleet.watch.look(now=True)
    session_id = f"session-{job_id.removeprefix('job-')}"
    begun = fleet.client.hgetall(fleet.store.keys.index(partition(session_id), "begun"))
    assert list(begun) == [f"{job_id}|1.0".encode()]


@pytest.mark.parametrize("damaged", ["x", json.dumps({"mark": 1}), "[]"])
def test_a_damaged_mark_is_written_again(fleet: Watched, damaged: str) -> None:
    """Text that is not a mark counts as a lost mark."""
    fleet.client.set(fleet.store.keys.data_mark(), damaged)
    assert fleet.watch.look(now=True)
    assert read_mark(fleet.client, fleet.store.keys)


def test_a_process_remembers_a_bounded_number_of_calls(fleet: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest calls are forgotten first."""
    monkeypatch.setattr(data_watch, "MOST_CALLS", 0)
    fleet.run(fleet.enqueue_keyed())
    assert fleet.watch._begun == {}
