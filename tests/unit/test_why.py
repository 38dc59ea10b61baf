"""Why a job waits: for another job, for a dead letter or a decision, or because no worker serves its queue."""

from __future__ import annotations

import pytest

from midwatch import Agent, Client, Escalation, tool
from midwatch.errors import JobTimeout
from midwatch.orchestration.client.presence import ALIVE_MS, Presence, WorkerReport, count_slots
from midwatch.orchestration.client.why import explain_waits
from midwatch.schemas.failure import FailureKind
from midwatch.testing import InlineFleet, ScriptedModel, call
from midwatch.workers.cli.commands.doctor_checks import check_workers
from midwatch.workers.cli.commands.jobs import explain_status
from midwatch.workers.cli.commands.workers import find_unserved
from midwatch.workers.views.job_state import describe_state


@tool
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


CLERK = Agent("clerk", "scripted:m-1", "You help.", [pay], escalation=[Escalation("tool_approval", tools=["pay"])])


@pytest.fixture
def fleet():
    """A fleet without workers. The first reply is a failure that ends the job."""
    return InlineFleet(CLERK, model=ScriptedModel([FailureKind.AUTH_ERROR, call("pay", amount=5)]))


@pytest.fixture
def client(fleet):
    return Client(store=fleet.store, operations=fleet.operations)


def report(name: str = "host.1", queues: tuple[str, ...] = ("model", "tools"), **more: object) -> WorkerReport:
    given = {"pool": "threads", "slots": 16, "busy": 3, "agents": {"clerk": "v1"}, "version": "0.1.0", "started_ms": 1}
    return WorkerReport(**{"name": name, "host": "host", "pid": 1, "queues": queues, **given, **more})


def why(client: Client, job_id: str) -> str:
    """The reason as lists show it."""
    return client.jobs.explain([client.jobs.show(job_id)]).get(job_id, "")


def test_a_job_behind_a_running_one_names_it(fleet, client):
    """The first job has no worker. The second waits for its session, not for a worker."""
    first, second = (fleet.enqueue(CLERK, "x", session_id="s1") for _ in range(2))
    assert why(client, first) == "no worker serves the queue `model`"
    assert why(client, second) == f"behind job {first} of its session, which is queued"


def test_a_job_behind_a_dead_letter_says_how_to_go_on(fleet, client):
    """A dead letter holds its session until a person replays or discards it."""
    first, second = (fleet.enqueue(CLERK, "x", session_id="s1") for _ in range(2))
    fleet.run(first)
    assert why(client, second).startswith(
        f"behind the dead letter of job {first} (auth_error): replay it with `midwatch dlq"
    )
    assert why(client, first) == ""


def test_a_job_behind_a_question_names_the_job_that_asks(fleet, client):
    """A decision is needed before the session goes on."""
    fleet.run(fleet.enqueue(CLERK, "x", session_id="s0"))
    first, second = (fleet.enqueue(CLERK, "x", session_id="s1") for _ in range(2))
    assert fleet.run(first).status == "parked"
    assert f"behind job {first} of its session, which waits for a decision" in why(client, second)


def test_with_a_worker_that_serves_the_queue_nothing_is_said_at_first(fleet, client):
    """The message is on its way. After a second without a claim, the slots are the reason."""
    job_id = fleet.enqueue(CLERK, "x")
    client.workers.report(report())
    assert why(client, job_id) == ""
    late = client.jobs.show(job_id).model_copy(update={"held_since_ms": 0})
    assert (
        client.jobs.explain([late])[job_id]
        == "waits for a free worker: 1 worker serves `model`, 3 of 16 slots are busy"
    )


def test_a_worker_of_another_queue_does_not_help(fleet, client):
    """Only the queue of the job's next step counts."""
    job_id = fleet.enqueue(CLERK, "x")
    client.workers.report(report(queues=("tools", "maintenance")))
    assert why(client, job_id) == "no worker serves the queue `model`"
    calling = client.jobs.show(job_id).model_copy(update={"open_calls": 1})
    assert client.jobs.explain([calling]) == {}


def test_the_reason_is_in_lists_pages_and_timeouts(fleet, client):
    """`jobs list`, the page and the error of `result` say the same."""
    job_id = fleet.enqueue(CLERK, "x")
    job = client.jobs.show(job_id)
    reason = why(client, job_id)
    assert explain_status(job, job.created_ms, reason) == reason
    assert str(describe_state(job, job.created_ms, reason)) == f"queued, {reason}"
    with pytest.raises(JobTimeout, match=r"is queued after 0.0 s: no worker serves the queue `model`; it goes on"):
        client.jobs.get(job_id).result(0.0)


def test_ended_jobs_cost_no_question(fleet, client, monkeypatch):
    """Nothing is read for jobs whose record says everything."""
    job_id = fleet.enqueue(CLERK, "x")
    fleet.run(job_id)
    job = client.jobs.show(job_id)
    monkeypatch.setattr(fleet.operations, "client", None)
    assert explain_waits(fleet.operations, [job]) == {}


def test_workers_that_do_not_report_any_more_are_not_listed(client):
    """Reports of workers that died are removed. What can't be read is removed, too."""
    presence = client.workers
    presence.report(report("b.2"))
    presence.report(report("a.1", ("tools",)))
    assert [worker.name for worker in presence.list()] == ["a.1", "b.2"]
    assert count_slots(presence.list(), "model") == (1, 16, 3)
    old = report("c.3", seen_ms=presence.now_ms() - ALIVE_MS - 1)
    client.store.client.hset(presence._key, mapping={"c.3": old.model_dump_json(), "d.4": "{"})
    assert [worker.name for worker in presence.list()] == ["a.1", "b.2"]
    assert {name.decode() for name in client.store.client.hkeys(presence._key)} == {"a.1", "b.2", "c.3"}
    assert 0 < client.store.client.ttl(presence._key) <= 24 * 3600
    presence.leave("a.1")
    assert [worker.name for worker in Presence(client.store.client, client.operations.keys).list()] == ["b.2"]


def test_doctor_names_the_queues_that_no_worker_serves():
    """`doctor` also counts the jobs that wait for each queue."""
    found = check_workers([report(queues=("model",))], {"tools": 4})
    assert [(check.result, check.found) for check in found] == [
        ("ok", "1, serving model"),
        ("warn", "no worker serves the queue tools; jobs that wait for it: 4"),
        ("warn", "no worker serves the queue maintenance"),
    ]
    assert len(check_workers([], {})) == 3
    assert find_unserved([report(queues=("model",))]) == ["tools", "maintenance"]
