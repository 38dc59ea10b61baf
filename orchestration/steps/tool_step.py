"""A tool call: validated, never run twice without its key, answered whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.errors import LeaseLost, ToolError, ToolFailed
from midwatch.orchestration.protocol.calls import Call, Report
from midwatch.orchestration.protocol.commits import ResultCommit
from midwatch.orchestration.steps import child_jobs
from midwatch.orchestration.steps.gated_calls import tool_call
from midwatch.orchestration.steps.leases import Hold
from midwatch.orchestration.steps.read_reply import needs_approval
from midwatch.orchestration.tools.context import ToolContext
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.results import bound, new_handle
from midwatch.orchestration.tools.run import run_tool
from midwatch.orchestration.tools.toolbox import CheckedCall, RefusedCall, idempotency_key
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.message import ToolMessage
from midwatch.schemas.step import Continue, Outcome, Park
from midwatch.schemas.trace import TraceRecord

if TYPE_CHECKING:
    from midwatch.orchestration.steps.runner import Attempt

GRACE_MS = 5_000
"""How long beyond a tool's own timeout its lease is renewed: time to commit what it returned."""

EFFECT_UNKNOWN = "unknown_effect"
"""Reason of a park, and what the verdict of a human who says no to it begins with."""

EFFECT_OPEN = (FailureKind.TIMEOUT, FailureKind.CONNECTION, FailureKind.PROVIDER_ERROR)
"""After these nobody knows whether the downstream did what it was asked."""

UNKNOWN_EFFECT = (
    "The outcome of this call is unknown: the worker that ran it vanished before it could report. "
    "It was not run again. Check whether it took effect before you repeat it."
)


class ToolStep:
    """Runs the call of one tool step."""

    def __init__(self, attempt: Attempt, agent: Agent) -> None:
        self.a = attempt
        self.agent = agent
        self.claim = attempt.claim
        self.asked: Call | None = None
        """What the coordinator admitted, for a tool with a downstream."""

    def run(self) -> Outcome:
        """The step in its own task."""
        if self.claim.call is None:
            raise LeaseLost  # its row has no call: the turn was answered meanwhile
        checked = self.agent.toolbox.check(self.claim.call)
        if isinstance(checked, RefusedCall):  # the agent's code changed since the turn was committed
            return self.answer(checked.message, is_error=True, effect="none")
        tool, arguments = checked.tool, checked.arguments
        if self.claim.verdict.startswith("rejected:"):
            return self.rejected()
        if not self.claim.verdict and needs_approval(self.agent, tool, arguments):
            return self.park(Park(question=f"May {tool.name} run?", reason="tool_approval"))
        if tool.child is not None:
            return child_jobs.step(self, tool, arguments)
        if self.claim.interrupted and not tool.idempotent:  # an approval is for one try; after a decision it is not set
            return self.unknown(tool)
        self.asked = tool_call(tool, self.claim)
        if self.asked and (refusal := self.a.admit(self.asked)):
            return self.a.refused(refusal)
        with self.a.r.leases.hold(self.claim, int(tool.timeout_s * 1000) + GRACE_MS) as hold:
            outcome = self.execute(checked, hold)
            if hold.lost:
                raise LeaseLost
            return outcome

    def execute(self, checked: CheckedCall, hold: Hold) -> Outcome:
        """Run it, and commit what it came to."""
        tool = checked.tool
        try:
            content = self.call(tool, checked.arguments, hold)
        except ToolError as error:
            self.report(None)
            return self.answer(f"Error: {error}", is_error=True)
        except ToolFailed as error:
            self.report(error.failure)
            return self.failed(tool, error.failure)
        self.report(None)
        return self.answer(*content)

    def call(self, tool: Tool, arguments: JsonObject, hold: Hold) -> tuple[str, bool, str | None]:
        """Content, is_error, handle of the whole when it was too long."""
        outcome = run_tool(tool, arguments, self.context(tool, arguments, hold))
        handle = new_handle(self.claim.ref.job_id, self.claim.ref.step)
        bounded = bound(outcome.content, tool.max_result_tokens, handle)
        if bounded.body is None:
            return bounded.content, False, None
        self.a.r.store.put_result(self.claim.ref.session_id, handle, bounded.body)
        return bounded.content, False, handle

    def context(self, tool: Tool, arguments: JsonObject, hold: Hold) -> ToolContext:
        """What a tool may know and do."""
        claim, store = self.claim, self.a.r.store

        def keep(name: str, body: bytes) -> str:
            handle = new_handle(claim.ref.job_id, f"{claim.ref.step}-{name}")
            store.put_result(claim.ref.session_id, handle, body)
            return handle

        return ToolContext(
            job_id=claim.ref.job_id,
            step_id=claim.ref.step,
            session_id=claim.ref.session_id,
            tenant=claim.job.tenant,
            idempotency_key=self.key(tool, arguments),
            attempt=claim.attempt,
            timeout_s=tool.timeout_s,
            is_cancelled=lambda: hold.cancelled or hold.lost,
            keep=keep,
        )

    def key(self, tool: Tool, arguments: JsonObject) -> str:
        """The same for every try at this call, and for no other call."""
        return idempotency_key(self.claim.ref.job_id, self.claim.ref.step, tool.name, arguments)

    def failed(self, tool: Tool, failure: Failure) -> Outcome:
        """By policy: fail hard, try again (only what may be repeated), or tell the model."""
        config = tool.retry or self.agent.retry_config
        if failure.kind in config.fail_hard_on:
            return self.a.dead(failure)
        if failure.kind in config.retry_on and tool.idempotent:
            return self.a.failed(config, failure)
        effect = "unknown" if failure.kind in EFFECT_OPEN else "done"
        return self.answer(f"Error: {failure.detail}", is_error=True, effect=effect, failure=failure)

    def report(self, failure: Failure | None) -> None:
        """For the coordinator, when the tool has a downstream."""
        if self.asked:
            latency_ms = self.a.now_ms() - self.a.started_ms
            self.a.report(self.asked, Report(failure=failure, latency_ms=latency_ms))

    def unknown(self, tool: Tool) -> Outcome:
        """It had begun, and nobody knows what came of it: a human decides, or the model is told."""
        if self.agent.asks_human("unknown_effect", tool.name):
            question = (
                f"{tool.name} had begun when its worker vanished. Approve to run it again, reject to go on without."
            )
            return self.park(Park(question=question, reason=EFFECT_UNKNOWN))
        failure = Failure(kind=FailureKind.UNKNOWN_EFFECT, detail=f"{tool.name} had begun when its worker vanished")
        return self.answer(UNKNOWN_EFFECT, is_error=True, effect="unknown", failure=failure)

    def rejected(self) -> Outcome:
        """A human said no: to the call, or to running it again when nobody knows what came of it."""
        reason = self.claim.verdict.partition(":")[2]
        if reason.startswith(EFFECT_UNKNOWN):
            why = reason.removeprefix(EFFECT_UNKNOWN)
            return self.answer(f"{UNKNOWN_EFFECT} A human decided so. {why}".strip(), is_error=True, effect="unknown")
        reason = reason or "no reason given"
        return self.answer(f"A human rejected this call: {reason}", is_error=True, effect="none")

    def park(self, park: Park) -> Outcome:
        """Put the call aside for a human."""
        trace = self.a.trace(park, reason=park.reason)
        if not self.a.r.store.park(self.claim, park, trace):
            raise LeaseLost
        self.a.r.observe(self.claim, trace, park)
        return park

    def answer(
        self,
        content: str,
        is_error: bool = False,
        handle: str | None = None,
        effect: str = "done",
        failure: Failure | None = None,
    ) -> Outcome:
        """Commit the call's one result."""
        outcome = Continue()
        message, trace = self.result(content, is_error, handle, effect, failure, outcome)
        commit = ResultCommit(refs=(self.claim.ref,), messages=(message,), traces=(trace,))
        with self.a.along() as along:
            done = self.a.r.store.commit_results(self.claim, commit, along)
        if not done:
            raise LeaseLost
        self.a.r.observe(self.claim, trace, outcome)
        return outcome

    def result(
        self, content: str, is_error: bool, handle: str | None, effect: str, failure: Failure | None, outcome: Continue
    ) -> tuple[ToolMessage, TraceRecord]:
        """The message and the record of one result."""
        call, ref = self.claim.call, self.claim.ref
        if call is None or ref.ordinal is None:
            raise LeaseLost
        message = ToolMessage(
            group=self.claim.group,
            ordinal=ref.ordinal,
            call_id=call.id,
            tool=call.name,
            content=content,
            is_error=is_error,
            handle=handle,
        )
        trace = self.a.trace(outcome, failure=failure)
        return message, trace.model_copy(update={"effect": effect})
