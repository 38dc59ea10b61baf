"""Run one tool call that has passed validation, and turn the result into a message and a trace record."""

from __future__ import annotations

from dataclasses import dataclass

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.errors import LeaseLost, ToolError, ToolFailed
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.steps.attempt import Attempt
from midwatch.orchestration.steps.leases import Hold
from midwatch.orchestration.steps.retry import is_retried
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.tools.context import ToolContext
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.results import bound, new_handle
from midwatch.orchestration.tools.run import run_tool
from midwatch.orchestration.tools.toolbox import idempotency_key
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.message import ToolMessage
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.step import Continue
from midwatch.schemas.trace import TraceRecord

GRACE_MS = 5_000
"""How long a lease is renewed after the tool's timeout: the time to commit the result."""

EFFECT_OPEN = (FailureKind.TIMEOUT, FailureKind.CONNECTION, FailureKind.PROVIDER_ERROR)
"""After these failures it is unknown whether the call took effect."""


@dataclass(frozen=True)
class CallResult:
    """The result of a call, as the model will read it."""

    content: str
    is_error: bool = False
    handle: str | None = None
    """The handle of the whole result, if `content` is only a part of it."""
    effect: str = "done"
    """What is known of the side effect: done, unknown, none."""
    failure: Failure | None = None


@dataclass(frozen=True)
class FailedCall:
    """A tool has failed. `config` decides whether it is tried again."""

    failure: Failure
    config: RetryConfig
    is_idempotent: bool

    @property
    def ends_attempt(self) -> bool:
        """True when the step fails or is tried again. Otherwise the model reads the error and goes on."""
        kind, config = self.failure.kind, self.config
        if kind in config.fail_hard_on:
            return True
        allows_retry = config.max_retries > 0 or kind in config.retry_on
        return self.is_idempotent and allows_retry and is_retried(config, kind)

    def as_result(self) -> CallResult:
        """The failure as an answer to the model."""
        effect = "unknown" if self.failure.kind in EFFECT_OPEN else "done"
        return CallResult(f"Error: {self.failure.detail}", is_error=True, effect=effect, failure=self.failure)


def run_call(
    services: Services, claim: Claim, agent: Agent, tool: Tool, arguments: JsonObject, hold: Hold
) -> CallResult | FailedCall:
    """Run the tool. Its arguments have passed validation."""
    try:
        outcome = run_tool(tool, arguments, make_context(services, claim, tool, arguments, hold))
    except ToolError as error:
        return CallResult(f"Error: {error}", is_error=True)
    except ToolFailed as error:
        return FailedCall(error.failure, tool.retry or agent.retry_config, tool.idempotent)
    handle = new_handle(claim.ref.job_id, claim.ref.step)
    bounded = bound(outcome.content, tool.max_result_tokens, handle)
    if bounded.body is None:
        return CallResult(bounded.content)
    services.store.put_result(claim.ref.session_id, handle, bounded.body)
    return CallResult(bounded.content, handle=handle)


def make_context(services: Services, claim: Claim, tool: Tool, arguments: JsonObject, hold: Hold) -> ToolContext:
    """Make the context, from which a tool's function reads the facts of its call."""
    ref = claim.ref

    def keep(name: str, body: bytes) -> str:
        handle = new_handle(ref.job_id, f"{ref.step}-{name}")
        services.store.put_result(ref.session_id, handle, body)
        return handle

    return ToolContext(
        job_id=ref.job_id,
        step_id=ref.step,
        session_id=ref.session_id,
        tenant=claim.job.tenant,
        idempotency_key=idempotency_key(ref.job_id, ref.step, tool.name, arguments),
        attempt=claim.attempt,
        timeout_s=tool.timeout_s,
        is_cancelled=lambda: hold.cancelled or services.leases.is_over(hold),
        keep=keep,
    )


def make_message(attempt: Attempt, result: CallResult, outcome: Continue) -> tuple[ToolMessage, TraceRecord]:
    """The message for the session, and the record for the trace."""
    claim = attempt.claim
    if claim.call is None or claim.ref.ordinal is None:
        raise LeaseLost
    message = ToolMessage(
        group=claim.group,
        ordinal=claim.ref.ordinal,
        call_id=claim.call.id,
        tool=claim.call.name,
        content=result.content,
        is_error=result.is_error,
        handle=result.handle,
    )
    trace = attempt.trace(outcome, failure=result.failure)
    return message, trace.model_copy(update={"effect": result.effect})
