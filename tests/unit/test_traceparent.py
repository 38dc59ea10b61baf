"""A producer's trace: which values are valid, and that every log event of the job's steps carries its id."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from midwatch import Agent, tool
from midwatch.orchestration.client.new_job import new_job
from midwatch.schemas.traceparent import is_traceparent, trace_id_of
from midwatch.testing import InlineFleet, ScriptedModel, call
from midwatch.workers.process import tasks

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
VALID = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.mark.parametrize("value", [VALID, f"cc-{TRACE}-00f067aa0ba902b7-00-more"])
def test_a_valid_traceparent_has_a_trace_id(value: str) -> None:
    """A later version may add fields at the end."""
    assert is_traceparent(value)
    assert trace_id_of(value) == TRACE


@pytest.mark.parametrize(
    "value",
    [
        "", "00", 7, None, VALID.upper(), f"{VALID}-more", f"ff-{TRACE}-00f067aa0ba902b7-01", f"{VALID}\n",
        f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{TRACE}-{'0' * 16}-01", f"01-{TRACE}-00f067aa0ba902b7-01-{'x' * 300}",
    ],
)  # fmt: skip
def test_an_invalid_traceparent_is_recognized(value: object) -> None:
    """Zeros, capitals, version ff, and more than 256 characters are not valid."""
    assert not is_traceparent(value)


def test_every_log_event_of_a_step_has_the_trace_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """That includes the events of a tool and of a child job. Another job's steps have none."""
    seen: list[dict[str, Any]] = []

    @tool(idempotent=True)
    def look_up(order: str) -> str:
        """Find an order."""
        seen.append(structlog.contextvars.get_contextvars())
        return order

    child = Agent("child", "scripted:m-1", "You look.", tools=[look_up])
    clerk = Agent("clerk", "scripted:m-1", "You help.", tools=[look_up], children=[child])
    script = [call("look_up", order="A"), call("child", input="Look."), call("look_up", order="B"), "Found.", "Done."]
    fleet = InlineFleet(clerk, model=ScriptedModel([*script, call("look_up", order="C"), "Done."]))
    job = new_job(clerk, "Go.", traceparent=VALID)
    fleet.store.enqueue(job)
    assert fleet.run(job.job_id).output == "Done."
    assert fleet.store.job(job.job_id).traceparent == VALID
    fleet.run(fleet.enqueue(clerk, "Go."))
    assert [one.get("trace_id") for one in seen] == [TRACE, TRACE, None]
    assert "trace_id" not in structlog.contextvars.get_contextvars()


def test_an_invalid_traceparent_of_a_producer_is_ignored() -> None:
    """The job is enqueued without it. A log event says so."""
    given = {"job_id": "job-1", "traceparent": "00-ab-cd-01"}
    with structlog.testing.capture_logs() as logs:
        assert tasks._without_invalid_trace(given) == {"job_id": "job-1"}
        assert tasks._without_invalid_trace({**given, "traceparent": VALID})["traceparent"] == VALID
    assert [(one["event"], one["job_id"]) for one in logs] == [("start.invalid_traceparent", "job-1")]
