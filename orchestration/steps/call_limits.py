"""Limits on the tool calls and child jobs of a lineage. A call beyond a limit does not run: the model gets an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.ports import Gate
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.commits import CallRow
from midwatch.orchestration.protocol.lineage import CallReservation, LimitReached, PlannedCall, chain_of, deepest_level
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.toolbox import CheckedCall
from midwatch.schemas.job import Job
from midwatch.schemas.lineage import Member
from midwatch.schemas.message import AssistantMessage, UserMessage
from midwatch.schemas.step import StepKind

MAX_CALLS_PER_TURN = 64
"""The most calls of one turn that run. A model that makes more has probably gone wrong."""


class DeclinedCall(NamedTuple):
    """A call that exceeds a limit of its lineage."""

    row: CallRow
    is_child: bool
    message: str
    """The answer to the model."""


def find_exceeded_limit(agent: Agent, claim: Claim, tool: Tool, calls: Sequence[CallRow], children: int) -> str:
    """The answer to a call that exceeds a limit, or '' if it may run. `calls` and `children` are those of this turn so far."""
    limits, job = agent.limits, claim.job
    ceiling, is_child = limits.max_tool_calls, tool.child is not None
    made = job.tool_calls - job.children + len(calls) - children  # the start of a child is no tool call
    if isinstance(ceiling, int) and not is_child and made >= ceiling:
        return f"Not run: this job may make {ceiling} tool calls and has made them. Finish with what you have."
    if len(calls) >= MAX_CALLS_PER_TURN:
        return f"Not run: at most {MAX_CALLS_PER_TURN} calls in one turn. Make the others in the next turn."
    if isinstance(ceiling, dict) and tool.name in ceiling:
        made = count_by_tool(agent, claim, tool.name)[tool.name] + sum(row.call.name == tool.name for row in calls)
        if made >= ceiling[tool.name]:
            return f"Not run: {tool.name} may be called {ceiling[tool.name]} times and has been. Finish with what you have."
    if is_child and job.children + len(job.adopted) + children >= limits.max_children:
        return f"Not run: this job may start {limits.max_children} child jobs and has started them."
    deepest = deepest_level(chain_of(job, limits))
    if is_child and deepest is not None and job.depth >= deepest:
        return f"Not run: jobs may be nested {deepest} deep, and this one is."
    return ""


def reserve_calls(gate: Gate, agent: Agent, claim: Claim, calls: Sequence[CallRow]) -> Sequence[DeclinedCall]:
    """Reserve the turn's calls in its lineage. Returns the calls that exceed a limit of an ancestor, or of this job.

    A job without parent and children has only its own limits, and reserves nothing.

    Raises:
        LeaseLost: a later claim of this job has reserved calls.

    """
    planned = [PlannedCall(row.call.name, is_child=_is_child(agent, row)) for row in calls]
    starts_child, chain = any(call.is_child for call in planned), chain_of(claim.job, agent.limits)
    is_bound = any(one.bounds is None or one.bounds.max_tool_calls is not None for one in chain)
    if not starts_child and not (claim.job.shares_limits and planned and is_bound):
        return ()
    names_tools = any(one.bounds is None or isinstance(one.bounds.max_tool_calls, dict) for one in chain)
    before = count_by_tool(agent, claim) if names_tools else {}
    reached = gate.reserve_calls(CallReservation(claim, chain, planned, before))
    return [
        DeclinedCall(row, call.is_child, explain_limit(claim.job, limit))
        for row, call, limit in zip(calls, planned, reached, strict=True)
        if limit
    ]


def release_calls(gate: Gate, claim: Claim) -> None:
    """Give back what this turn reserved for its calls. A job that ends at a model turn makes none of them."""
    if claim.job.shares_limits and claim.ref.kind is StepKind.MODEL:
        gate.reserve_calls(CallReservation(claim, (Member(job_id=claim.job.job_id), *claim.job.ancestors), ()))


def _is_child(agent: Agent, row: CallRow) -> bool:
    tool = agent.toolbox.get(row.call.name)
    return tool is not None and tool.child is not None


def explain_limit(job: Job, limit: LimitReached) -> str:
    """The answer to a call that exceeds a limit of the lineage."""
    if limit.field == "max_children":
        return f"Not run: this job may start {limit.most} child jobs and has started them."
    whose = "this job" if limit.job_id == job.job_id else f"job {limit.job_id}, which started this one,"
    what = f"{limit.most} calls of {limit.tool}" if limit.tool else f"{limit.most} tool calls"
    return f"Not run: {whose} and its descendants may make {what} (max_tool_calls) and have made them. Finish with what you have."


def count_by_tool(agent: Agent, claim: Claim, only: str = "") -> Counter[str]:
    """Count the calls of the job's earlier turns by tool, or of one tool. A call with invalid arguments did not run."""
    of_this_job = takewhile(lambda message: not isinstance(message, UserMessage), reversed(claim.log))
    turns = (message for message in of_this_job if isinstance(message, AssistantMessage))
    calls = (call for turn in turns for call in turn.tool_calls if only in ("", call.name))
    return Counter(call.name for call in calls if isinstance(agent.toolbox.check(call), CheckedCall))
