"""JobResult: a failure can't be taken for an answer, neither in a program nor in what it prints."""

from __future__ import annotations

import pickle

import pytest

from midwatch import Agent, JobResult
from midwatch.errors import MidwatchError, NoOutput
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.testing import InlineFleet, ScriptedModel, run_inline

AGENT = Agent("clerk", "scripted:m-1", "You help.")
NO_KEY = Failure(kind=FailureKind.AUTH_ERROR, detail="anthropic: ANTHROPIC_API_KEY is not set")


def result(status: JobStatus, output: str | None = None, failure: Failure | None = None) -> JobResult:
    return JobResult(job_id="j1", session_id="s1", status=status, output=output, failure=failure)


def test_a_completed_job_has_its_output():
    """The output is a text, also an empty one. The printed result names the job and ends with the output."""
    done = result(JobStatus.COMPLETED, "At five.")
    assert (done.output, str(done)) == ("At five.", "job j1 is completed: At five.")
    assert result(JobStatus.COMPLETED, "").output == ""


@pytest.mark.parametrize(
    ("status", "failure", "words"),
    [
        (JobStatus.DEAD_LETTERED, NO_KEY, "auth_error: anthropic: ANTHROPIC_API_KEY is not set"),
        (JobStatus.CANCELLED, None, "it was cancelled before it had an output"),
        (JobStatus.CANCELLED, Failure(kind=FailureKind.CANCELLED, detail="by its parent"), "by its parent"),
        (JobStatus.PARKED, None, "midwatch approvals list"),
        (JobStatus.TIMED_OUT, None, "it has no output"),
        (JobStatus.COMPLETED, None, "deleted with its session"),
    ],
)
def test_without_an_output_reading_it_raises_the_reason(status, failure, words):
    """`output` raises NoOutput with the status and the failure. The printed result has the same reason, never `None`."""
    ended = result(status, None, failure)
    with pytest.raises(NoOutput, match=words) as raised:
        _ = ended.output
    assert (raised.value.job_id, raised.value.status, raised.value.failure) == ("j1", status, failure)
    assert "midwatch trace j1" in str(raised.value)
    assert words in str(ended)
    assert "None" not in str(ended)
    assert ended.output_or_none is None


def test_the_json_of_a_result_is_unchanged():
    """Programs that read the JSON find `output`, also null."""
    assert result(JobStatus.CANCELLED).model_dump(mode="json")["output"] is None
    assert JobResult.model_validate(result(JobStatus.COMPLETED, "x").model_dump()).output == "x"


def test_the_error_survives_a_process_boundary():
    """It is pickled whole, so a Celery task of the user may raise it."""
    with pytest.raises(MidwatchError) as raised:
        _ = result(JobStatus.DEAD_LETTERED, None, NO_KEY).output
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_a_dead_letter_of_a_real_run_raises_its_failure():
    """The failure of the last step is the reason."""
    ended = run_inline(AGENT, "hi", model=ScriptedModel([FailureKind.AUTH_ERROR]))
    with pytest.raises(NoOutput, match="is dead_lettered: auth_error"):
        _ = ended.output


def test_a_cancelled_job_of_a_real_fleet_has_no_output():
    """A job that never ran has no failure, and says that it was cancelled."""
    fleet = InlineFleet(AGENT, model=ScriptedModel([]))
    job_id = fleet.enqueue(AGENT, "hi")
    fleet.operations.cancel(job_id)
    assert "cancelled" in str(fleet.run(job_id))
