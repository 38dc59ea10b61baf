"""The calls that pass the gate: what a model turn and a tool with a `downstream` ask the coordinator for."""

from __future__ import annotations

import math
from collections.abc import Callable

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.model_names import ModelName
from midwatch.orchestration.errors import ModelError
from midwatch.orchestration.ports import Gate, Model
from midwatch.orchestration.protocol.calls import Call, Report
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.compactions import CompactionWork
from midwatch.orchestration.tokens.estimate import PRIOR
from midwatch.orchestration.tokens.weight import weigh, weigh_all
from midwatch.orchestration.tools.declaration import Tool
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import Job
from midwatch.schemas.model import ModelReply, ModelRequest

COMMIT_MS = 5_000
"""Beyond the bound on a call: time to settle and commit what came of it."""


def model_call(agent: Agent, claim: Claim, request: ModelRequest, tokens: int, model: ModelName) -> Call:
    """One model turn of about `tokens` input. The root job says what its whole lineage may use."""
    usage, limits = claim.job.usage, agent.limits
    is_root = claim.job.root_id == claim.job.job_id
    return Call(
        claim=claim,
        downstream=str(model),
        lasts_ms=int(request.timeout_s * 1_000) + COMMIT_MS,
        input_tokens=tokens,
        cached_tokens=tokens * usage.cached_tokens // max(1, usage.input_tokens),  # as much of it as so far
        output_tokens=request.max_output_tokens,
        lineage_input_tokens=(limits.max_input_tokens or 0) if is_root else None,
        lineage_output_tokens=(limits.max_output_tokens or 0) if is_root else None,
    )


def summary_call(work: CompactionWork, job: Job, downstream: str, request: ModelRequest) -> Call:
    """One call of a compaction's summarizer: of the job's lineage, beside its steps."""
    claim = Claim(
        ref=work.ref, fence=0, nonce=work.nonce, now_ms=0, job=job, attempt=0, losses=0, interrupted=False, ending=""
    )
    return Call(
        claim=claim,
        downstream=downstream,
        lasts_ms=int(request.timeout_s * 1_000) + COMMIT_MS,
        input_tokens=math.ceil((weigh(request.system) + weigh_all(request.messages)) * PRIOR),
        output_tokens=request.max_output_tokens,
    )


def asked(
    model: Callable[[], Model], request: ModelRequest, gate: Gate, call: Call
) -> tuple[ModelReply | Failure, Report]:
    """The call itself, and what the coordinator is to be told of it."""
    try:
        reply = model().complete(request)
    except ModelError as error:
        return error.failure, Report(failure=error.failure, sent=error.sent, headers=error.ratelimit)
    except Exception as error:  # a provider broke its promise: what it reserved must not stay reserved
        gate.settle(call, Report(failure=Failure(kind=FailureKind.INTERNAL, detail=type(error).__name__)))
        raise
    return reply, Report(usage=reply.usage, headers=reply.ratelimit or {}, latency_ms=reply.latency_ms)


def tool_call(tool: Tool, claim: Claim) -> Call | None:
    """One call of a tool; None when it declares no downstream."""
    if not tool.downstream:
        return None
    return Call(claim=claim, downstream=tool.downstream, lasts_ms=int(tool.timeout_s * 1_000) + COMMIT_MS)
