"""An agent as a tool: the tool step starts a child job in the same lineage and is answered when that job ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.errors import LeaseLost, NotFound
from midwatch.orchestration.ports import Store
from midwatch.orchestration.protocol.addresses import child_id
from midwatch.orchestration.tools.declaration import Tool
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.job import Job, JobStatus, Parent
from midwatch.schemas.step import Continue, Outcome, StepKind

if TYPE_CHECKING:
    from midwatch.orchestration.steps.tool_step import ToolStep

POLL_MS = 5_000
"""How often a waiting parent looks by itself. The child's end wakes it at once; this finds a lost wake-up."""


def step(tool_step: ToolStep, tool: Tool, arguments: JsonObject) -> Outcome:
    """Start the child, or look how it stands."""
    claim, runner = tool_step.claim, tool_step.a.r
    ref = claim.ref
    try:
        child = runner.store.job(child_id(ref))
    except NotFound:
        agent: Agent = runner.agents.find(tool.child or "")
        parent = Parent(ref=ref, root_id=claim.job.root_id, depth=claim.job.depth + 1)
        runner.store.enqueue(
            new_job(
                agent,
                str(arguments["input"]),
                job_id=child_id(ref),
                tenant=claim.job.tenant,
                priority=ref.priority,
                parent=parent,
            )
        )
        return _wait(tool_step)
    if not child.status.ended:
        return _wait(tool_step)
    content, is_error = _report(child)
    return tool_step.answer(content, is_error)


def orphaned(store: Store, job: Job) -> bool:
    """Was the job that asked for this one cancelled, or did it run out of time? A dead one may be replayed, and still asks."""
    if job.parent is None or job.parent.kind is not StepKind.TOOL:
        return False
    try:
        return store.job(job.parent.job_id).status in (JobStatus.CANCELLED, JobStatus.TIMED_OUT)
    except NotFound:
        return False


def _wait(tool_step: ToolStep) -> Outcome:
    if not tool_step.a.r.store.wait_for_child(tool_step.claim, POLL_MS):
        raise LeaseLost
    return Continue()


def _report(child: Job) -> tuple[str, bool]:
    if child.status is JobStatus.COMPLETED:
        return child.output or "", False
    why = f"{child.failure.kind}: {child.failure.detail}" if child.failure else child.status.value
    return (
        f"Error: the child agent {child.agent} did not finish ({why}). It was already retried; do not just repeat the call.",
        True,
    )
