"""Limits on the tool calls and child jobs of a job. A call beyond a limit does not run: the model gets an error."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.commits import CallRow
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.toolbox import CheckedCall
from midwatch.schemas.message import AssistantMessage, UserMessage

MAX_CALLS_PER_TURN = 64
"""The most calls of one turn that run. A model that makes more has probably gone wrong."""


def find_exceeded_limit(agent: Agent, claim: Claim, tool: Tool, calls: Sequence[CallRow], children: int) -> str:
    """The answer to a call that exceeds a limit, or '' if it may run. `calls` and `children` are those of this turn so far."""
    limits = agent.limits
    ceiling = limits.max_tool_calls
    if isinstance(ceiling, int) and claim.job.tool_calls + len(calls) >= ceiling:
        return f"Not run: this job may make {ceiling} tool calls and has made them. Finish with what you have."
    if len(calls) >= MAX_CALLS_PER_TURN:
        return f"Not run: at most {MAX_CALLS_PER_TURN} calls in one turn. Make the others in the next turn."
    if isinstance(ceiling, dict) and tool.name in ceiling:
        made = count_earlier_calls(agent, claim, tool) + sum(row.call.name == tool.name for row in calls)
        if made >= ceiling[tool.name]:
            return f"Not run: {tool.name} may be called {ceiling[tool.name]} times and has been. Finish with what you have."
    if tool.child is not None and claim.job.children + children >= limits.max_children:
        return f"Not run: this job may start {limits.max_children} child jobs and has started them."
    if tool.child is not None and claim.job.depth >= limits.max_depth:
        return f"Not run: jobs may be nested {limits.max_depth} deep, and this one is."
    return ""


def count_earlier_calls(agent: Agent, claim: Claim, tool: Tool) -> int:
    """Count the calls of this tool in earlier turns of the job. A call with invalid arguments did not run and does not count."""
    of_this_job = takewhile(lambda message: not isinstance(message, UserMessage), reversed(claim.log))
    turns = (message for message in of_this_job if isinstance(message, AssistantMessage))
    calls = (call for turn in turns for call in turn.tool_calls if call.name == tool.name)
    return sum(isinstance(agent.toolbox.check(call), CheckedCall) for call in calls)
