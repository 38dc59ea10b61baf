"""The record of one attempt. The waterfall, the dead letter and the findings are made from it."""

from __future__ import annotations

import structlog

from midwatch.orchestration.context.planning.plan import cut_prompt
from midwatch.orchestration.protocol.claims import Claim
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Job
from midwatch.schemas.model import ModelReply
from midwatch.schemas.step import Outcome
from midwatch.schemas.trace import TraceRecord
from midwatch.schemas.traceparent import trace_id_of


def make_record(
    claim: Claim,
    outcome: Outcome,
    reply: ModelReply | None,
    *,
    failure: Failure | None,
    reason: str,
    invalid: tuple[str, ...],
    word: str,
    worker: str,
    span_ms: tuple[int, int],
    asked: str = "",
) -> TraceRecord:
    """Make the record of one attempt. `span_ms` holds its start and its end in the server's time.

    `word` replaces the outcome's name if that name does not say how the job ended.
    """
    return TraceRecord(
        step=claim.ref.step,
        kind=claim.ref.kind,
        group=claim.group,
        attempt=claim.attempt,
        outcome=word or outcome.kind,
        started_ms=span_ms[0],
        ended_ms=span_ms[1],
        worker=worker,
        reason=reason,
        asked=asked,
        prompt_cut=cut_prompt(claim.log),
        model=reply.model if reply else None,
        stop=reply.stop.value if reply else None,
        usage=reply.usage if reply else None,
        request_id=reply.request_id if reply else None,
        tools=tuple(call.name for call in reply.tool_calls) if reply else (),
        tool=claim.call.name if claim.call else None,
        invalid=invalid,
        failure=failure,
    )


def bind_trace(job: Job) -> None:
    """Add the producer's `trace_id` to every log event of this context, if the job has one. A step has a context of its own."""
    if trace_id := trace_id_of(job.traceparent):
        structlog.contextvars.bind_contextvars(trace_id=trace_id)
