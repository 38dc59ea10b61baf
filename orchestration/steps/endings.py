"""How jobs end without an answer: cancelled, or as a dead letter that names the limit and has the failed attempts."""

from __future__ import annotations

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.commits import Ending
from midwatch.orchestration.steps.losses.report import describe_losses
from midwatch.schemas.deadletter import DeadLetterRecord, Try
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import WaitOwner
from midwatch.schemas.trace import TraceRecord

NO_RESULT = "This call has no result, because the job ended first ({why}). If it had begun, it may have taken effect."

MOST_TRIES = 200
"""The most failed attempts that a dead letter lists: twice the largest `max_retries`. The trace has all of them."""


def failure_of_ending(claim: Claim) -> Failure:
    """The failure for `claim.ending`, the reason why the job must end. It names the limit that was reached."""
    job = claim.job
    match claim.ending:
        case "cancelled":
            return Failure(kind=FailureKind.CANCELLED, detail="cancelled on request")
        case "timed_out":
            detail = f"session_timeout: not finished after {_seconds(job.max_worked_ms)} of its own work"
            return Failure(kind=FailureKind.TIMEOUT, detail=detail, limit="session_timeout_s")
        case "deadline":
            allowed_ms = job.ends_by_ms - job.created_ms if job.ends_by_ms else None
            detail = f"deadline: not finished {_seconds(allowed_ms)} after it was enqueued"
            return Failure(kind=FailureKind.TIMEOUT, detail=detail, limit="deadline_s")
        case "max_wait":
            detail = f"max_wait: held by others for {_seconds(job.held_ms)}; at last by {_name_holder(claim)}"
            return Failure(kind=FailureKind.WAITED_TOO_LONG, detail=detail, limit="max_wait_s")
        case "expired":
            detail = f"expired: no decision was made in time about step {claim.ref.step}"
            return Failure(kind=FailureKind.WAITED_TOO_LONG, detail=detail, limit="expires_s")
        case "step_limit":
            detail = f"step_limit: {job.max_steps} model turns taken (max_steps) and no final answer"
            return Failure(kind=FailureKind.BUDGET_EXCEEDED, detail=detail, limit="max_steps")
        case _:
            return Failure(kind=FailureKind.WORKER_LOST, detail=describe_losses(claim))


def _seconds(ms: int | None) -> str:
    return "0 s" if ms is None else f"{ms / 1_000:.3g} s" if ms < 10_000 else f"{round(ms / 1_000)} s"


def _name_holder(claim: Claim) -> str:
    """Name who held the job last. Without a deferral in this turn, no worker took its step."""
    holder = claim.job.holder
    if holder is None or holder.turn != claim.ref.turn:
        return "a lack of workers"
    since = _seconds(claim.now_ms - holder.since_ms)
    match holder.owner:
        case WaitOwner.DOWNSTREAM:
            return f"{holder.downstream or 'a downstream'} for {since}"
        case WaitOwner.HUMAN:
            return f"a question to a human for {since}"
        case WaitOwner.CHILD:
            return f"a child job for {since}"
        case WaitOwner.SESSION:
            return f"a compaction of its session for {since}"
        case _:
            return f"a lack of workers for {since}"


def find_spent_budget(agent: Agent, claim: Claim) -> Failure | None:
    """The failure of a job that has reached one of its token limits, or None."""
    usage, limits = claim.job.usage, agent.limits
    for name, used, limit in (
        ("max_input_tokens", usage.input_tokens, limits.max_input_tokens),
        ("max_output_tokens", usage.output_tokens, limits.max_output_tokens),
    ):
        if limit is not None and used >= limit:
            detail = f"{name}: {used} tokens used of {limit}"
            return Failure(kind=FailureKind.BUDGET_EXCEEDED, detail=detail, limit=name)
    return None


def make_ending(claim: Claim, failure: Failure, *, dead_ms: int, worker: str, tries: tuple[Try, ...] = ()) -> Ending:
    """The ending for a failure: `cancelled` is the user's will, everything else is a dead letter.

    The tries of a `worker_lost` letter are the losses. The worker that writes this letter did not try.
    """
    repair = NO_RESULT.format(why=failure.kind.value)
    if claim.ending == "cancelled":
        return Ending(status=JobStatus.CANCELLED, failure=failure, repair=repair)
    last = Try(at_ms=dead_ms, worker=worker, attempt=claim.attempt, failure=failure)
    letter = DeadLetterRecord(
        job_id=claim.ref.job_id,
        session_id=claim.ref.session_id,
        agent=claim.job.agent,
        step=claim.ref.step,
        kind=claim.ref.kind,
        tool=claim.call.name if claim.call else None,
        failure=failure,
        agent_version=claim.job.agent_version,
        dead_ms=dead_ms,
        tries=tries if failure.kind is FailureKind.WORKER_LOST else (*tries, last),
    )
    return Ending(status=JobStatus.DEAD_LETTERED, failure=failure, letter=letter)


def earlier_tries(records: list[TraceRecord], step: str) -> tuple[Try, ...]:
    """The last failed attempts at a step, from the job's trace. In a long outage there may be thousands."""
    failed = tuple(
        Try(at_ms=record.ended_ms, worker=record.worker, attempt=record.attempt, failure=record.failure)
        for record in records
        if record.step == step and record.failure is not None
    )
    return failed[-MOST_TRIES:]
