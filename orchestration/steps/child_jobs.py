"""An agent as a tool: the tool step starts a child job in the same lineage and returns the child's answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.errors import NotFound
from midwatch.orchestration.protocol.addresses import child_id
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.lineage import chain_of, time_left
from midwatch.orchestration.steps.attempt import Attempt
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.tools.declaration import Tool
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.decision import Verdict
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import Job, JobStatus, Parent
from midwatch.schemas.step import Outcome

POLL_MS = 5_000
"""How often a waiting parent checks its child. The end of the child wakes the parent at once. Polling covers a lost wake-up."""


@dataclass(frozen=True)
class ChildAnswer:
    """The answer of a child that has ended."""

    content: str
    is_error: bool


def ask_child(services: Services, claim: Claim, tool: Tool, arguments: JsonObject) -> Job | None:
    """Start the child job and return None, or return its record."""
    try:
        return services.store.job(child_id(claim.ref))
    except NotFound:
        _start_child(services, claim, tool, arguments)
        return None


def _start_child(services: Services, claim: Claim, tool: Tool, arguments: JsonObject) -> None:
    job = claim.job
    limits = services.agents.find(job.agent).limits
    parent = Parent(
        ref=claim.ref,
        root_id=job.root_id,
        depth=job.depth + 1,
        ancestors=chain_of(job, limits),
        **time_left(job, claim.now_ms)._asdict(),
    )
    services.store.enqueue(
        new_job(
            services.agents.find(tool.child or ""),
            str(arguments["input"]),
            job_id=child_id(claim.ref),
            tenant=job.tenant,
            priority=claim.ref.priority,
            parent=parent,
            traceparent=claim.job.traceparent,
        )
    )


def answer_of(child: Job) -> ChildAnswer:
    """The answer of a child that has ended."""
    if child.status is JobStatus.COMPLETED:
        return ChildAnswer(child.output or "", is_error=False)
    why = f"{child.failure.kind}: {child.failure.detail}" if child.failure else child.status.value
    return ChildAnswer(
        f"Error: the child agent {child.agent} did not finish ({why}). It was already retried; do not just repeat the call.",
        is_error=True,
    )


def end_orphan(attempt: Attempt) -> Outcome | None:
    """End a job whose ancestor is over: cancelled, timed out, or given up. Returns None if the job may go on.

    A dead letter may be replayed, so its descendants go on. So do the children of producers if their parent has completed; but
    what a human approved meanwhile does not run.
    """
    claim = attempt.claim
    over = attempt.services.store.over_ancestor(claim.job) if claim.job.ancestors else None
    is_approved = claim.decision is not None and claim.decision.verdict is Verdict.APPROVE
    if over is None or not (over.ends_descendants or is_approved):
        return None
    attempt.claim = replace(claim, ending="cancelled")
    detail = f"approved, but not run: {over}" if is_approved else str(over)
    return attempt.end_as_dead_letter(Failure(kind=FailureKind.CANCELLED, detail=detail))
