"""Inline calls: the quick tools of a turn, run in the turn's own task under the tool step's own rules."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.errors import LeaseLost, ToolError, ToolFailed
from midwatch.orchestration.protocol.commits import CallRow, ResultCommit
from midwatch.orchestration.steps.leases import Hold
from midwatch.orchestration.steps.tool_step import EFFECT_OPEN, GRACE_MS, ToolStep
from midwatch.orchestration.tools.declaration import Tool
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import ToolMessage
from midwatch.schemas.step import Continue
from midwatch.schemas.trace import TraceRecord

if TYPE_CHECKING:
    from midwatch.orchestration.steps.runner import Attempt


def run_inline(turn: Attempt, agent: Agent, calls: Sequence[tuple[CallRow, Tool, JsonObject]]) -> None:
    """The quick calls of a turn, one after the other in the turn's own task; results go in one commit.

    A call that must be tried again is put back as a task of its own.
    """
    refs, messages, traces = [], [], []
    at_most_ms = int(1000 * sum(tool.timeout_s for _, tool, _ in calls)) + GRACE_MS
    ones = [(InlineCall(turn, agent, row), tool, arguments) for row, tool, arguments in calls]
    with ExitStack() as holds:
        # The turn's own row went with its commit; each call has a row and a lease, also while it waits its turn.
        held = [holds.enter_context(turn.r.leases.hold(one.claim, at_most_ms)) for one, _, _ in ones]
        for (one, tool, arguments), hold in zip(ones, held, strict=True):
            if hold.lost or hold.cancelled:
                continue
            result = one.execute_inline(tool, arguments, hold)
            if result:
                refs.append(one.claim.ref)
                messages.append(result[0])
                traces.append(result[1])
    if not refs:
        return
    commit = ResultCommit(refs=tuple(refs), messages=tuple(messages), traces=tuple(traces))
    if not turn.r.store.commit_results(turn.claim, commit):
        raise LeaseLost
    for trace in traces:
        turn.r.observe(turn.claim, trace, Continue())


class InlineCall(ToolStep):
    """One inline call: the tool step's own rules, under the model turn's claim."""

    def __init__(self, turn: Attempt, agent: Agent, row: CallRow) -> None:
        self.turn = turn
        claim = replace(turn.claim, ref=turn.claim.ref.call(row.ordinal), attempt=0, call=row.call)
        super().__init__(type(turn)(turn.r, claim), agent)

    def execute_inline(self, tool: Tool, arguments: JsonObject, hold: Hold) -> tuple[ToolMessage, TraceRecord] | None:
        """The result to commit, or None when the call was put back or ended the job."""
        outcome = Continue()
        self.a.begin(self.turn.now_ms())
        try:
            content, is_error, handle = self.call(tool, arguments, hold)
        except ToolError as error:
            return self.result(f"Error: {error}", True, None, "done", None, outcome)
        except ToolFailed as error:
            config = tool.retry or self.agent.retry_config
            hard = error.failure.kind in config.fail_hard_on
            if hard or (error.failure.kind in config.retry_on and tool.idempotent):
                self.failed(tool, error.failure)
                return None
            effect = "unknown" if error.failure.kind in EFFECT_OPEN else "done"
            return self.result(f"Error: {error.failure.detail}", True, None, effect, error.failure, outcome)
        return self.result(content, is_error, handle, "done", None, outcome)
