"""What each keyword of `enqueue` and `run` and each field of a start message does: one probe a field."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from midwatch import Agent
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.client import client as client_module
from midwatch.orchestration.client.client import Client
from midwatch.orchestration.client.handle import JobHandle
from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.errors import JobTimeout
from midwatch.schemas.job import Job, NewJob
from midwatch.testing import InlineFleet
from midwatch.workers.process import tasks
from tests.unit.field_stage import Model, Probe, differs, shown_by

CLERK = Agent("clerk", "scripted:m-1", "You help.")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Producer:
    """A fleet without workers, and a client of it."""

    def __init__(self) -> None:
        self.model = Model("Done.")
        self.fleet = InlineFleet(CLERK, model=self.model)
        self.client = Client(store=self.fleet.store, operations=self.fleet.operations)

    def enqueue(self, input: str = "Go.", **fields: Any) -> JobHandle:
        """Call `Agent.enqueue`, which uses the environment's client."""
        with patch.object(client_module, "default_client", lambda: self.client):
            return CLERK.enqueue(input, **fields)

    def run(self, input: str = "Go.", **fields: Any) -> Any:
        """Call `Agent.run`. Nothing works on the job, so the call ends when its time is up."""
        with patch.object(client_module, "default_client", lambda: self.client):
            try:
                return CLERK.run(input, **{"timeout_s": 0.0, **fields})
            except JobTimeout as error:
                return str(error)

    def jobs(self) -> list[Job]:
        """All jobs of the fleet."""
        return list(self.fleet.operations.jobs())

    def start(self, **fields: Any) -> Job | str:
        """Deliver a start message. Returns the job, or the reason why the message is poison."""
        keys = self.fleet.operations.keys
        settings = SimpleNamespace(one_server=True)
        process = SimpleNamespace(agents=Registry([CLERK]), client=self.client, settings=settings)
        given = {"job_id": "job-1", "agent": "clerk", "session_id": "s1", "input": "Go.", **fields}
        with patch.object(tasks, "runtime", lambda: process):
            tasks.start.run(given)
        poison = self.fleet.client.lrange(keys.poison(), 0, -1)
        return str(poison[0]) if poison else self.jobs()[0]


def enqueued(field: str, read: Any, value: Any) -> Probe:
    """A keyword of `enqueue` changes what `read` finds."""
    return differs(lambda fields: read(Producer().enqueue(**fields)), {}, {field: value})


def started(field: str, read: Any, value: Any) -> Probe:
    """A field of a start message changes what `read` finds in the job."""
    return differs(lambda fields: read(Producer().start(**fields)), {}, {field: value})


def accepts_twice(key: str | None) -> bool:
    """Is the same call of `enqueue` accepted again?"""
    producer = Producer()
    producer.enqueue(idempotency_key=key)
    return producer.enqueue(idempotency_key=key).accepted


def session_of_run(session_id: str | None) -> bool:
    """Does `run` use this session?"""
    producer = Producer()
    producer.run(session_id=session_id)
    return producer.jobs()[0].session_id == "s9"


def sent(text: str, how: str) -> str:
    """What the model gets from a job with this input."""
    producer = Producer()
    if how == "enqueue":
        producer.enqueue(text)
    elif how == "run":
        producer.run(text)
    else:
        producer.start(input=text)
    producer.fleet.run(producer.jobs()[0].job_id)
    return str(producer.model.requests[0].messages)


ENQUEUE: Mapping[str, Probe] = {
    "input": differs(lambda text: sent(text, "enqueue"), "Go.", "Stop."),
    "session_id": enqueued("session_id", lambda handle: handle.session_id, "s9"),
    "idempotency_key": differs(accepts_twice, None, "key-1"),
    "priority": enqueued("priority", lambda handle: handle.job().priority, "high"),
    "tenant": enqueued("tenant", lambda handle: handle.job().tenant, "acme"),
    "parent": shown_by("tests/contract/test_lineages.py::test_token_limits_of_a_parent_bind_its_children"),
}

RUN: Mapping[str, Probe] = {
    "input": differs(lambda text: sent(text, "run"), "Go.", "Stop."),
    "session_id": differs(session_of_run, None, "s9"),
    "timeout_s": differs(lambda limit_s: Producer().run(timeout_s=limit_s).partition(" is ")[2], 0.0, 0.02),
}

START: Mapping[str, Probe] = {
    "v": started("v", lambda found: isinstance(found, Job), 99),
    "job_id": started("job_id", lambda job: job.job_id, "job-2"),
    "agent": started("agent", lambda job: job.agent, "other"),
    "session_id": started("session_id", lambda job: job.session_id, "s2"),
    "input": differs(lambda text: sent(text, "start"), "Go.", "Stop."),
    "idempotency_key": started("idempotency_key", lambda job: job.job_id, "key-1"),
    "tenant": started("tenant", lambda job: job.tenant, "acme"),
    "priority": started("priority", lambda job: job.priority, "low"),
    "traceparent": started("traceparent", lambda job: job.traceparent, TRACE),
}

CLI = "tests/functional/test_cli.py"

SUBMIT: Mapping[str, Probe] = {
    "agent": shown_by(f"{CLI}::test_submit_refuses_what_could_never_run"),
    "input": shown_by(f"{CLI}::test_submit_reads_a_file_or_explains_why_it_can_not"),
    "session": shown_by(f"{CLI}::test_jobs_are_listed_filtered_and_shown"),
    "key": shown_by(f"{CLI}::test_submit_prints_the_id_and_a_repeated_key_the_same_id"),
    "tenant": shown_by(f"{CLI}::test_jobs_are_listed_filtered_and_shown"),
    "priority": shown_by(f"{CLI}::test_jobs_are_listed_filtered_and_shown"),
    "wait": shown_by(f"{CLI}::test_a_wait_that_times_out_reports_the_jobs_state"),
    "timeout_s": shown_by(f"{CLI}::test_a_wait_that_times_out_reports_the_jobs_state"),
    "as_json": shown_by(f"{CLI}::test_a_wait_that_times_out_reports_the_jobs_state"),
}


def stored(**fields: Any) -> object:
    """Everything that the server stores for a job with these fields of `NewJob`."""
    producer = Producer()
    base = new_job(CLERK, "Go.", job_id="job-1", session_id="s1")
    producer.client.store.enqueue(NewJob.model_validate({**base.model_dump(), **fields}))
    server = producer.fleet.client
    return [(key, server.dump(key)) for key in sorted(server.keys("*"))]


def stores(field: str, value: object) -> Probe:
    """A field of `NewJob` changes what the server stores."""
    return differs(lambda fields: stored(**fields), {}, {field: value})


def _is_read(version: int) -> bool:
    try:
        return bool(stored(v=version))
    except ValueError:
        return False


PARENT = {"ref": {"job_id": "job-0", "session_id": "s0", "step": "0"}, "root_id": "job-0", "depth": 1}

NEW_JOB: Mapping[str, Probe] = {
    "v": differs(_is_read, 1, 99),
    "job_id": stores("job_id", "job-2"),
    "agent": stores("agent", "other"),
    "agent_version": stores("agent_version", "v2"),
    "session_id": stores("session_id", "s2"),
    "input": stores("input", "Stop."),
    "tenant": stores("tenant", "acme"),
    "priority": stores("priority", "high"),
    "parent": stores("parent", PARENT),
    "traceparent": stores("traceparent", TRACE),
    "max_steps": stores("max_steps", 7),
    "timeout_ms": stores("timeout_ms", 7_000),
    "max_wait_ms": stores("max_wait_ms", 7_000),
    "max_total_ms": stores("max_total_ms", 7_000),
    "bounds": stores("bounds", {"max_steps": 7}),
    "on_busy": shown_by(
        "tests/functional/test_sessions.py::test_a_rejecting_agent_refuses_a_busy_session_and_takes_a_free_one"
    ),
}
