"""JobResult: how a job ended. Its output can be read only if there is one, so a failure is never taken for an answer."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from midwatch.orchestration.errors import NoOutput
from midwatch.schemas.contract import Id, Record
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.model import Usage


class JobResult(Record):
    """How a job ended, as `agent.run` and `JobHandle.result` return it."""

    model_config = ConfigDict(serialize_by_alias=True)

    job_id: Id
    session_id: Id
    status: JobStatus
    output_or_none: str | None = Field(default=None, alias="output")
    """The output, or None if there is none. It is `output` in JSON."""
    usage: Usage = Usage()
    cost_usd: float | None = None
    """Always None: costs are not computed yet."""
    steps: int = 0
    """Model turns taken."""
    failure: Failure | None = None

    @property
    def output(self) -> str:
        """The answer of a job that completed.

        Raises:
            NoOutput: the job did not complete, or its session was deleted. The message says why.

        """
        if self.output_or_none is None:
            raise NoOutput(self.job_id, self.status, self.failure, self.why)
        return self.output_or_none

    def __str__(self) -> str:
        """The outcome in one sentence, then the output if there is one."""
        done = self.status is JobStatus.COMPLETED
        return f"job {self.job_id} is {self.status}: {self.output_or_none or self.why if done else self.why}"

    @property
    def why(self) -> str:
        """Why there is no output, in one line."""
        if self.failure is not None:
            return f"{self.failure.kind}: {self.failure.detail}"
        return {
            JobStatus.COMPLETED: "its output was deleted with its session",
            JobStatus.PARKED: "it waits for a human; `midwatch approvals list` shows the question",
            JobStatus.CANCELLED: "it was cancelled before it had an output",
        }.get(self.status, "it has no output")


def result_of(job: Job) -> JobResult:
    """Return the part of the job's record that its producer needs."""
    return JobResult(
        job_id=job.job_id,
        session_id=job.session_id,
        status=job.status,
        output=job.output,
        usage=job.usage,
        steps=job.turn,
        failure=job.failure,
    )
