"""A tool call in its own task: validate it again, get an approval if needed, pass the gate, run it, commit the result."""

from __future__ import annotations

from dataclasses import replace

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.errors import LeaseLost
from midwatch.orchestration.protocol.addresses import child_id
from midwatch.orchestration.protocol.calls import Report
from midwatch.orchestration.protocol.commits import ResultCommit
from midwatch.orchestration.protocol.store_replies import ChildWait
from midwatch.orchestration.steps.attempt import Attempt
from midwatch.orchestration.steps.child_jobs import POLL_MS, answer_of, ask_child, end_orphan
from midwatch.orchestration.steps.endings import failure_of_ending
from midwatch.orchestration.steps.gated_calls import tool_call
from midwatch.orchestration.steps.questions import make_question
from midwatch.orchestration.steps.read_reply import needs_approval
from midwatch.orchestration.steps.tool_calls import GRACE_MS, CallResult, FailedCall, make_message, run_call
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.toolbox import CheckedCall, RefusedCall
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.decision import HumanDecision, ParkReason, Verdict
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.step import Continue, Outcome

UNKNOWN_EFFECT = (
    "The outcome of this call is unknown: the worker that ran it vanished before it could report. "
    "It was not run again. Check whether it took effect before you repeat it."
)


class ToolStep:
    """Runs the call of one tool step."""

    def __init__(self, attempt: Attempt, agent: Agent) -> None:
        self.attempt = attempt
        self.services = attempt.services
        self.agent = agent
        self.claim = attempt.claim

    def run(self) -> Outcome:
        """Run the call to an outcome."""
        claim = self.claim
        if claim.call is None:
            raise LeaseLost  # the row has no call: the turn already has all its results
        if claim.decision and (ended := end_orphan(self.attempt)):
            return ended
        checked = self.agent.toolbox.check(claim.call)
        if isinstance(checked, RefusedCall):  # the agent's code has changed since the turn was committed
            return self.answer(CallResult(checked.message, is_error=True, effect="none"))
        tool, arguments = checked.tool, checked.arguments
        if claim.decision and claim.decision.verdict is Verdict.REJECT:
            return self.answer(rejection_result(claim.decision))
        if not claim.decision and needs_approval(self.agent, tool, arguments):
            question = f"May {tool.name} run?"
            return self.attempt.park(make_question(self.agent, ParkReason.TOOL_APPROVAL, question, tool.name))
        if tool.child is not None:
            return self.run_child(tool, arguments)
        if claim.interrupted and not tool.idempotent:  # an approval clears `interrupted` for one try
            return self.settle_unknown_effect(tool)
        return self.run_tool(checked)

    def run_child(self, tool: Tool, arguments: JsonObject) -> Outcome:
        """Start the child job, wait for it, or commit its answer."""
        claim, attempt = self.claim, self.attempt
        child = ask_child(self.services, claim, tool, arguments)
        worked_ms = child.count_worked_ms(attempt.now_ms()) if child else 0
        if child and child.status.ended:
            answer = answer_of(child)
            return self.answer(CallResult(answer.content, is_error=answer.is_error), child_worked_ms=worked_ms)
        waits = self.services.store.wait_for_child(claim, POLL_MS, child_id=child_id(claim.ref), worked_ms=worked_ms)
        if waits is ChildWait.LOST:
            raise LeaseLost
        if waits is ChildWait.MAX_WAIT:
            return attempt.end_as_dead_letter(failure_of_ending(replace(claim, ending="max_wait")))
        return Continue()

    def settle_unknown_effect(self, tool: Tool) -> Outcome:
        """Ask a human or inform the model that the call had begun when its worker vanished."""
        if self.agent.asks_human("unknown_effect", tool.name):
            question = (
                f"{tool.name} had begun when its worker vanished. Approve to run it again, reject to go on without."
            )
            return self.attempt.park(make_question(self.agent, ParkReason.UNKNOWN_EFFECT, question, tool.name))
        failure = Failure(kind=FailureKind.UNKNOWN_EFFECT, detail=f"{tool.name} had begun when its worker vanished")
        return self.answer(CallResult(UNKNOWN_EFFECT, is_error=True, effect="unknown", failure=failure))

    def run_tool(self, checked: CheckedCall) -> Outcome:
        """Ask the gate, run the tool under a lease, and commit the result."""
        tool, attempt = checked.tool, self.attempt
        call = tool_call(tool, self.claim)
        if call and (refusal := attempt.gated_calls.admit(call)):
            return attempt.turn_back(refusal)
        with self.services.leases.hold(self.claim, int(tool.timeout_s * 1000) + GRACE_MS) as hold:
            attempt.require_lease(hold)
            if not tool.idempotent:
                self.services.note_begin(self.claim)
            result = run_call(self.services, self.claim, self.agent, tool, checked.arguments, hold)
            failure = result.failure if isinstance(result, FailedCall) else None
            if call:
                latency_ms = attempt.now_ms() - attempt.started_ms
                attempt.gated_calls.report(call, Report(failure=failure, latency_ms=latency_ms))
            outcome = self.end(result)
            if hold.lost:
                raise LeaseLost
            return outcome

    def end(self, result: CallResult | FailedCall) -> Outcome:
        """Fail hard, try again, or answer."""
        if isinstance(result, CallResult):
            return self.answer(result)
        if not result.ends_attempt:
            return self.answer(result.as_result())
        if result.failure.kind in result.config.fail_hard_on:
            return self.attempt.end_as_dead_letter(result.failure)
        return self.attempt.retry_or_end(result.config, result.failure)

    def answer(self, result: CallResult, *, child_worked_ms: int = 0) -> Outcome:
        """Commit the result of the call."""
        outcome = Continue()
        message, trace = make_message(self.attempt, result, outcome)
        commit = ResultCommit((self.claim.ref,), (message,), (trace,), child_worked_ms=child_worked_ms)
        with self.attempt.gated_calls.settle_with_commit() as settlement:
            committed = self.services.store.commit_results(self.claim, commit, settlement)
        if not committed:
            raise LeaseLost
        self.services.observe(self.claim, trace, outcome)
        return outcome


def rejection_result(decision: HumanDecision) -> CallResult:
    """The result of a call that was rejected, or that may not run again when its effect is unknown."""
    if decision.about is ParkReason.UNKNOWN_EFFECT:
        why = (
            f"A human was asked, but {decision.reason}."
            if decision.expired
            else f"A human decided so. {decision.reason}"
        )
        return CallResult(f"{UNKNOWN_EFFECT} {why}".strip(), is_error=True, effect="unknown")
    if decision.expired:
        return CallResult(f"Not run: {decision.reason}.", is_error=True, effect="none")
    reason = decision.reason or "no reason given"
    return CallResult(f"A human rejected this call: {reason}", is_error=True, effect="none")
