"""The texts of the pages: a job's state in one line, and a job's steps on an axis."""

from __future__ import annotations

import pytest

from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import Job, JobStatus, Waiting
from midwatch.schemas.message import AssistantMessage, Text, ToolCall, UserMessage
from midwatch.schemas.step import StepKind
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.flower.waterfall import draw
from midwatch.workers.views.job_state import describe_state

NOW = 1_000_000
REFUSED = Failure(kind=FailureKind.REFUSED, detail="the model refused to answer")


def job(status: JobStatus = JobStatus.RUNNING, **changes: object) -> Job:
    """Return a job with some fields changed."""
    fixed = {"job_id": "j", "agent": "desk", "agent_version": "1", "session_id": "s", "root_id": "j"}
    return Job.model_validate({**fixed, "status": status, "max_steps": 9, "created_ms": 0, **changes})


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (job(JobStatus.QUEUED), "queued"),
        (job(), "running"),
        (
            job(waiting=Waiting(step="1", reason="rate_limited", until_ms=NOW + 11_200, attempt=2)),
            "retrying, attempt 3, next in 12 s: rate_limited",
        ),
        (
            job(waiting=Waiting(step="1", reason="timeout", until_ms=NOW - 5, attempt=1)),
            "retrying, attempt 2, due now: timeout",
        ),
        (
            job(waiting=Waiting(step="1", reason="anthropic tokens", until_ms=NOW + 300_000)),
            "waiting, next in 5m 00s: anthropic tokens",
        ),
        (
            job(
                waiting=Waiting(
                    step="1",
                    reason="paused, about 20 s",
                    until_ms=NOW + 19_500,
                    owner="downstream",
                    downstream="anthropic:claude-sonnet-4-6",
                    since_ms=NOW - 2_460_000,
                )
            ),
            "held by anthropic:claude-sonnet-4-6 since 41m 00s, next try in 20 s: paused, about 20 s",
        ),
        (
            job(waiting=Waiting(step="1.0", reason="child job job-7", owner="child", since_ms=NOW - 5_000)),
            "held by child job job-7 since 5.00 s",
        ),
        (job(held_since_ms=NOW - 4_000), "held by a lack of workers since 4.00 s"),
        (job(held_since_ms=NOW - 4_000, working=1), "running"),
        (job(JobStatus.QUEUED, held_since_ms=NOW - 4_000), "held by a lack of workers since 4.00 s"),
        (
            job(
                JobStatus.PARKED,
                waiting=Waiting(
                    step="1.0",
                    reason="tool_approval: May ship run?",
                    owner="human",
                    since_ms=NOW - 90_000,
                    until_ms=NOW + 30_000,
                    on_expiry="dead_letter",
                ),
            ),
            "parked, tool_approval: May ship run? (since 90.0 s); expires in 30.0 s, then: dead letter",
        ),
        (
            job(JobStatus.PARKED, waiting=Waiting(step="1.0", reason="tool_approval: May issue_refund run?")),
            "parked, tool_approval: May issue_refund run?",
        ),
        (job(JobStatus.DEAD_LETTERED, failure=REFUSED), "dead lettered, refused: the model refused to answer"),
        (job(JobStatus.COMPLETED), "completed"),
    ],
)
def test_a_state_names_the_reason_and_the_end_of_a_wait(shown: Job, text: str):
    """Each state is one line. A job that retries is not shown as just running."""
    assert str(describe_state(shown, NOW)) == text


def test_a_long_reason_is_cut():
    """A reason in a listing fits on one line."""
    detail = describe_state(
        job(JobStatus.DEAD_LETTERED, failure=Failure(kind=FailureKind.INTERNAL, detail="x" * 900)), NOW
    ).detail
    assert len(detail) == 200
    assert detail.endswith("…")


def record(step: str, start_ms: int, end_ms: int, **changes: object) -> TraceRecord:
    """A step's record."""
    kind = StepKind.TOOL if "." in step else StepKind.MODEL
    fixed = {"step": step, "kind": kind, "attempt": 0, "outcome": "continue", "worker": "w"}
    return TraceRecord.model_validate({**fixed, "started_ms": start_ms, "ended_ms": end_ms, **changes})


def test_rows_are_in_the_order_of_steps_and_show_their_waits():
    """A retry follows its step even if it came late. Bars stay inside the axis. Long idle time does not shrink the work."""
    records = [
        record("1", 0, 1_000, tools=("look", "ask")),
        record("1.1", 1_000, 2_000, tool="ask"),
        record("1.0", 1_000, 1_500, tool="look", outcome="defer"),
        record("1.0", 90_000_000, 90_001_000, tool="look", attempt=1),
    ]
    drawn = draw(job(), records, ())
    assert [(row.record.step, row.record.attempt) for row in drawn.rows] == [
        ("1", 0),
        ("1.0", 0),
        ("1.0", 1),
        ("1.1", 0),
    ]
    assert drawn.rows[2].waited_ms == 90_000_000 - 1_500
    assert all(row.left >= 0 and row.left + row.width <= 100 for row in drawn.rows)
    assert drawn.rows[0].width > 20
    assert dict(drawn.calls) == {"look": 1, "ask": 1}


def test_a_row_shows_the_models_text():
    """This works also in a session that holds another job."""
    messages = (
        UserMessage(group=1, text="before"),
        AssistantMessage(group=2, parts=(Text(text="another job"),), provider="p", model="m"),
        UserMessage(group=3, text="look"),
        AssistantMessage(
            group=4,
            parts=(Text(text="I look north."), ToolCall(id="c", name="look", raw_arguments="{}")),
            provider="p",
            model="m",
        ),
    )
    [row] = draw(job(), [record("1", 0, 10, tools=("look",))], messages).rows
    assert "I look north." in row.reason


def test_a_very_long_job_shows_its_newest_rows():
    """The number of hidden rows is given. No browser opens a page of ten thousand rows."""
    drawn = draw(job(), [record(str(n), n * 10, n * 10 + 5) for n in range(1, 501)], (), 200)
    assert len(drawn.rows) == 200
    assert drawn.rows[-1].record.step == "500"
    assert drawn.hidden == 300


def test_a_job_without_steps_has_no_rows():
    """Nothing is drawn, and no error is raised."""
    assert draw(job(), [], ()).rows == []
