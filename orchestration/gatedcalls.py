"""The calls that pass the gate: what a model turn and a tool with a `downstream` ask the coordinator for."""

from __future__ import annotations

from orchestration import context
from orchestration.admission.call import Call
from orchestration.agent import Agent
from orchestration.commits import Claim
from orchestration.tools import Tool
from schemas.model import ModelRequest

COMMIT_MS = 5_000
"""Beyond the bound on a call: time to settle and commit what came of it."""


def model_call(agent: Agent, claim: Claim, request: ModelRequest) -> Call:
    """One model turn. The root job says what its whole lineage may use."""
    tokens, usage, limits = context.estimated_tokens(agent, claim), claim.job.usage, agent.limits
    is_root = claim.job.root_id == claim.job.job_id
    return Call(
        claim=claim,
        downstream=str(agent.model),
        lasts_ms=int(request.timeout_s * 1_000) + COMMIT_MS,
        input_tokens=tokens,
        cached_tokens=tokens * usage.cached_tokens // max(1, usage.input_tokens),  # as much of it as so far
        output_tokens=request.max_output_tokens,
        lineage_input_tokens=(limits.max_input_tokens or 0) if is_root else None,
        lineage_output_tokens=(limits.max_output_tokens or 0) if is_root else None,
    )


def tool_call(tool: Tool, claim: Claim) -> Call | None:
    """One call of a tool; None when it declares no downstream."""
    if not tool.downstream:
        return None
    return Call(claim=claim, downstream=tool.downstream, lasts_ms=int(tool.timeout_s * 1_000) + COMMIT_MS)
