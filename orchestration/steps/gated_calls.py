"""Calls that pass the gate: a model call, a summary, a call of a tool with a `downstream`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.model_names import ModelName
from midwatch.orchestration.errors import ModelError
from midwatch.orchestration.ports import Gate, Model, Piggyback
from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.protocol.calls import Call, Report, Settlement
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.compactions import CompactionWork
from midwatch.orchestration.protocol.lineage import shared_chain
from midwatch.orchestration.tokens.estimate import PRIOR
from midwatch.orchestration.tokens.reported import drop_impossible_usage
from midwatch.orchestration.tokens.weight import weigh, weigh_all
from midwatch.orchestration.tools.declaration import Tool
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import Job
from midwatch.schemas.lineage import Member
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.schemas.step import Defer, StepKind

COMMIT_MS = 5_000
"""Added to the time limit of a call: the time to settle it and to commit its result."""


class GatedCalls:
    """Admits and settles the calls of one attempt. A step makes one call at a time."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._unsettled: tuple[Call, Report] | None = None
        self.settlement = Settlement()
        """The coordinator's answer to the last report of a failure."""
        self.failed_downstream: str | None = None
        """The downstream of the last call, if the gate refused the call or the call failed."""

    def admit(self, call: Call) -> Defer | Failure | None:
        """Ask the coordinator. None means that the call may start."""
        self.settle()
        refusal = self._gate.admit(call)
        self.failed_downstream = call.downstream if refusal else None
        return refusal

    def report(self, call: Call, report: Report) -> None:
        """Record the result of an admitted call. A failure is settled at once: the coordinator's answer decides what is next."""
        self._unsettled = (call, report)
        self.failed_downstream = call.downstream if report.failure else None
        if report.failure:
            self.settle()

    def settle(self) -> None:
        """Send the report if it was not sent yet."""
        unsettled, self._unsettled = self._unsettled, None
        if unsettled:
            self.settlement = self._gate.settle(*unsettled)

    @contextmanager
    def settle_with_commit(self) -> Iterator[Piggyback | None]:
        """Let the commit in this block carry the report. If the block raises, the report counts as not sent."""
        yield self._gate.make_piggyback(*self._unsettled) if self._unsettled else None
        self._unsettled = None


def model_call(agent: Agent, claim: Claim, request: ModelRequest, tokens: int, model: ModelName) -> Call:
    """The call of a model turn of about `tokens` input tokens. The limits of all ancestors bind it, too."""
    usage, limits, chain = claim.job.usage, agent.limits, shared_chain(claim.job, agent.limits)
    return Call(
        claim=claim,
        downstream=str(model),
        lasts_ms=int(request.timeout_s * 1_000) + COMMIT_MS,
        input_tokens=tokens,
        cached_tokens=tokens * usage.cached_tokens // max(1, usage.input_tokens),  # the share of earlier calls
        output_tokens=request.max_output_tokens,
        lineage_input_tokens=0 if chain else limits.max_input_tokens or 0,
        lineage_output_tokens=0 if chain else limits.max_output_tokens or 0,
        chain=chain,
    )


def summary_call(work: CompactionWork, job: Job, downstream: str, request: ModelRequest) -> Call:
    """The call of a summarizer. Its tokens count for the job and its ancestors, but it belongs to no step.

    Inside a turn, too, the gate knows it as a compaction: its failures must not count against the turn's own call.
    """
    ref = work.ref if work.ref.kind is StepKind.COMPACT else work.ref.compaction()
    claim = Claim(
        ref=ref, fence=0, nonce=work.nonce, now_ms=0, job=job, attempt=0, losses=0, interrupted=False, ending=""
    )
    return Call(
        claim=claim,
        downstream=downstream,
        lasts_ms=int(request.timeout_s * 1_000) + COMMIT_MS,
        input_tokens=math.ceil((weigh(request.system) + weigh_all(request.messages)) * PRIOR),
        output_tokens=request.max_output_tokens,
        lineage_input_tokens=0 if job.shares_limits else None,
        lineage_output_tokens=0 if job.shares_limits else None,
        chain=(Member(job_id=job.job_id), *job.ancestors) if job.shares_limits else (),
    )


def tool_call(tool: Tool, claim: Claim) -> Call | None:
    """The call of a tool. None if the tool declares no downstream."""
    if not tool.downstream:
        return None
    return Call(claim=claim, downstream=tool.downstream, lasts_ms=int(tool.timeout_s * 1_000) + COMMIT_MS)


def call_model(
    model: Callable[[], Model],
    request: ModelRequest,
    gate: Gate,
    call: Call,
    weight: int | None = None,
    anchor: Anchor | None = None,
) -> tuple[ModelReply | Failure, Report]:
    """Make an admitted call. Returns the reply or the failure, and the report for the coordinator.

    A usage that can't be true for a request of this weight (None: prompt and messages) counts as not reported.
    """
    try:
        reply = model().complete(request)
    except ModelError as error:
        return error.failure, Report(
            failure=error.failure, sent=error.sent, headers=error.ratelimit, opaque_sent_to=error.opaque_sent_to
        )
    except Exception as error:  # a provider may raise only ModelError: settle, or the reservation would stay
        gate.settle(call, Report(failure=Failure(kind=FailureKind.INTERNAL, detail=type(error).__name__)))
        raise
    if weight is None:
        weight = weigh(request.system) + weigh_all(request.messages)
    checked = drop_impossible_usage(
        reply, model=call.downstream, weight=weight, max_output_tokens=request.max_output_tokens, anchor=anchor
    )
    return checked, Report(
        usage=checked.usage,
        is_usage_wrong=checked.usage.impossible is not None,
        headers=reply.ratelimit or {},
        latency_ms=reply.latency_ms,
    )
