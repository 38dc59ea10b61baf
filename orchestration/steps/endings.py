"""How jobs end without an answer: cancelled, timed out, over a limit, or as a dead letter with its failed attempts."""

from __future__ import annotations

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.commits import Ending
from midwatch.orchestration.steps.losses.report import describe_losses
from midwatch.schemas.deadletter import DeadLetterRecord, Try
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.trace import TraceRecord

NO_RESULT = "This call has no result, because the job ended first ({why}). If it had begun, it may have taken effect."


def failure_of_ending(claim: Claim) -> Failure:
    """The failure for `claim.ending`, the reason why the job must end."""
    match claim.ending:
        case "cancelled":
            return Failure(kind=FailureKind.CANCELLED, detail="cancelled on request")
        case "timed_out":
            detail = f"session_timeout: not finished {_allowed_s(claim.job)} s after its first step"
            return Failure(kind=FailureKind.TIMEOUT, detail=detail)
        case "step_limit":
            detail = f"step_limit: {claim.job.max_steps} model turns taken (max_steps) and no final answer"
            return Failure(kind=FailureKind.BUDGET_EXCEEDED, detail=detail)
        case _:
            return Failure(kind=FailureKind.WORKER_LOST, detail=describe_losses(claim))


def _allowed_s(job: Job) -> int:
    if job.started_ms is None or job.deadline_ms is None:
        return 0
    return round((job.deadline_ms - job.started_ms) / 1000)


def find_spent_budget(agent: Agent, claim: Claim) -> Failure | None:
    """The failure of a job that has reached one of its token limits, or None."""
    usage, limits = claim.job.usage, agent.limits
    for name, used, limit in (
        ("max_input_tokens", usage.input_tokens, limits.max_input_tokens),
        ("max_output_tokens", usage.output_tokens, limits.max_output_tokens),
    ):
        if limit is not None and used >= limit:
            return Failure(kind=FailureKind.BUDGET_EXCEEDED, detail=f"{name}: {used} tokens used of {limit}")
    return None


def make_ending(claim: Claim, failure: Failure, *, dead_ms: int, worker: str, tries: tuple[Try, ...] = ()) -> Ending:
    """The ending for a failure: `cancelled` and `timed_out` are final, everything else is a dead letter.

    The tries of a `worker_lost` letter are the losses. The worker that writes this letter did not try.
    """
    repair = NO_RESULT.format(why=failure.kind.value)
    if claim.ending == "cancelled":
        return Ending(status=JobStatus.CANCELLED, failure=failure, repair=repair)
    if claim.ending == "timed_out":
        return Ending(status=JobStatus.TIMED_OUT, failure=failure, repair=repair)
    last = Try(at_ms=dead_ms, worker=worker, attempt=claim.attempt, failure=failure)
    letter = DeadLetterRecord(
        job_id=claim.ref.job_id,
        session_id=claim.ref.session_id,
        agent=claim.job.agent,
        step=claim.ref.step,
        kind=claim.ref.kind,
        tool=claim.call.name if claim.call else None,
        failure=failure,
        dead_ms=dead_ms,
        tries=tries if failure.kind is FailureKind.WORKER_LOST else (*tries, last),
    )
    return Ending(status=JobStatus.DEAD_LETTERED, failure=failure, letter=letter)


def earlier_tries(records: list[TraceRecord], step: str) -> tuple[Try, ...]:
    """The failed attempts at a step, from the job's trace."""
    return tuple(
        Try(at_ms=record.ended_ms, worker=record.worker, attempt=record.attempt, failure=record.failure)
        for record in records
        if record.step == step and record.failure is not None
    )
