"""Inline calls: the quick tools of a turn, run in the turn's own task, and the runtime's own tools."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.context.recall import RECALL, answer_recall
from midwatch.orchestration.errors import LeaseLost
from midwatch.orchestration.ports import Store
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.commits import CallRow, ResultCommit
from midwatch.orchestration.steps.attempt import Attempt
from midwatch.orchestration.steps.tool_calls import GRACE_MS, FailedCall, make_message, run_call
from midwatch.orchestration.steps.tool_step import ToolStep
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.result_pages import answer_read_result
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import ToolCall, ToolMessage
from midwatch.schemas.model import ModelReply
from midwatch.schemas.step import Continue, StepRef
from midwatch.schemas.trace import TraceRecord


def run_inline_calls(turn: Attempt, agent: Agent, calls: Sequence[tuple[CallRow, Tool, JsonObject]]) -> None:
    """Run the calls one after the other and commit their results together.

    A call that must be retried is deferred. Its retry runs in a separate task.
    """
    services = turn.services
    at_most_ms = int(1000 * sum(tool.timeout_s for _, tool, _ in calls)) + GRACE_MS
    attempts = [Attempt(services, _claim_call(turn, row)) for row, _, _ in calls]
    done: list[tuple[StepRef, ToolMessage, TraceRecord]] = []
    with ExitStack() as holds:
        # The commit of the turn ended the turn's row. Each call has its own row, and needs a lease while it waits its turn.
        held = [holds.enter_context(services.leases.hold(attempt.claim, at_most_ms)) for attempt in attempts]
        for attempt, hold, (_, tool, arguments) in zip(attempts, held, calls, strict=True):
            if hold.cancelled or not services.leases.has_lease(hold):
                continue
            if not tool.idempotent:
                services.note_begin(attempt.claim)
            attempt.start_clock(turn.now_ms())
            result = run_call(services, attempt.claim, agent, tool, arguments, hold)
            if isinstance(result, FailedCall):
                if result.ends_attempt:
                    ToolStep(attempt, agent).end(result)
                    continue
                result = result.as_result()
            done.append((attempt.claim.ref, *make_message(attempt, result, Continue())))
    _commit(turn, done)


def _claim_call(turn: Attempt, row: CallRow) -> Claim:
    return replace(turn.claim, ref=turn.claim.ref.call(row.ordinal), attempt=0, call=row.call)


def _commit(turn: Attempt, done: Sequence[tuple[StepRef, ToolMessage, TraceRecord]]) -> None:
    if not done:
        return
    refs, messages, traces = zip(*done, strict=True)
    if not turn.services.store.commit_results(turn.claim, ResultCommit(refs=refs, messages=messages, traces=traces)):
        raise LeaseLost
    for trace in traces:
        turn.services.observe(turn.claim, trace, Continue())


def answer_page(store: Store, claim: Claim, reply: ModelReply, call: ToolCall) -> ToolMessage:
    """Answer one call of `read_result` or `recall`, the runtime's own tools."""
    if call.name == RECALL.name:
        ordinal = next(place for place, one in enumerate(reply.tool_calls) if one is call)
        return answer_recall(store, claim, call, ordinal)
    return answer_read_result(store, claim, reply, call)
