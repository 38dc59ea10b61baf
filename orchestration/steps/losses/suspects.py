"""Suspects: a step that may have killed its worker runs alone in a separate process, before it can end its job.

Many steps run in one worker. When it dies, the lease of each of them ends, and only one of them may be the cause. So a loss
alone ends no job. A suspect runs alone: if its process dies while the worker lives, the cause is proven. If both die
together, nothing is proven, and the step runs again.
"""

from __future__ import annotations

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.isolation import AloneEnd, AloneRun
from midwatch.orchestration.steps.attempt import Attempt
from midwatch.orchestration.steps.losses.report import count_proven, describe_losses, log_loss
from midwatch.orchestration.steps.retry import backoff_ms
from midwatch.orchestration.steps.services import Isolate
from midwatch.orchestration.steps.tool_calls import GRACE_MS
from midwatch.orchestration.tools.declaration import Tool
from midwatch.schemas.decision import Verdict
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.loss import Loss, LossKind
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.step import Continue, Defer, Outcome, StepKind, WaitOwner

PROVEN_LOSSES = 2
"""Proven losses that make a dead letter, unless the `RetryConfig` says otherwise. With the first loss, which made the step a
suspect, the step has then run three times."""

MODEL_LOSSES = 5
"""Losses after which a model turn is a suspect. A turn mostly waits for its provider, so it is hardly ever the cause. A tool
step runs the user's code, and is a suspect after its first loss."""

START_MS = 60_000
"""How long the separate process may need until the step begins. On an idle machine it needs one second."""

ROOM_WAIT_MS = (2_000, 5_000)
"""A suspect for which the worker has no room is put back for a random time between these."""


def handle_losses(attempt: Attempt, agent: Agent) -> Outcome | None:
    """End the job of a step that has lost workers, or run the step alone. None: run it here, like any other step."""
    if failure := find_proven_failure(attempt.claim, agent):
        return attempt.end_as_dead_letter(failure)
    isolate = attempt.services.isolate
    if isolate is None or not is_suspect(attempt.claim, agent):
        return None
    return run_alone(attempt, agent, isolate)


def find_proven_failure(claim: Claim, agent: Agent) -> Failure | None:
    """The failure that ends the job because of this step's losses, or None.

    `worker_lost` in `retry_on`: `max_retries` proven losses are tried again. In `fail_hard_on`: a tool ends the job with its
    first loss, proven or not, and a model turn with its first proven one. In neither: `PROVEN_LOSSES` end it.
    """
    tool = find_tool(claim, agent)
    config = retry_config(agent, tool)
    proven = count_proven(claim)
    if FailureKind.WORKER_LOST in config.fail_hard_on:
        is_over = proven > 0 or (claim.losses > 0 and tool is not None and tool.child is None)
    elif FailureKind.WORKER_LOST in config.retry_on:
        is_over = proven > config.max_retries
    else:
        is_over = proven >= PROVEN_LOSSES
    return Failure(kind=FailureKind.WORKER_LOST, detail=describe_losses(claim)) if is_over else None


def is_suspect(claim: Claim, agent: Agent) -> bool:
    """May this step have killed the workers that it lost?"""
    if claim.ref.kind is StepKind.TOOL:
        return claim.losses > 0 and runs_code(claim, find_tool(claim, agent))
    is_strict = FailureKind.WORKER_LOST in agent.retry_config.fail_hard_on
    return claim.losses >= MODEL_LOSSES or count_proven(claim) > 0 or (is_strict and claim.losses > 0)


def runs_code(claim: Claim, tool: Tool | None) -> bool:
    """Will this tool step call a function? Not if a child job does the work, and not if the call must not be repeated."""
    is_rejected = claim.decision is not None and claim.decision.verdict is Verdict.REJECT
    return tool is not None and tool.child is None and not is_rejected and (tool.idempotent or not claim.interrupted)


def run_alone(attempt: Attempt, agent: Agent, isolate: Isolate) -> Outcome:
    """Run the step alone in a separate process. Record a loss if that process dies, and put the step back."""
    claim, services = attempt.claim, attempt.services
    limit_ms = longest_ms(claim, agent)
    with services.leases.hold(claim, START_MS + limit_ms):
        run = isolate(claim, limit_ms)
    if run.end is AloneEnd.DONE:
        return Continue()
    if run.end is AloneEnd.NO_ROOM:
        reason = "its worker died, so it must run alone, and this worker has no room for another process"
        wait_ms = services.rng.randint(*ROOM_WAIT_MS)
        return attempt.defer(Defer(after_ms=wait_ms, reason=reason, counts_as_attempt=False, owner=WaitOwner.WORKERS))
    return record_loss(attempt, agent, run)


def record_loss(attempt: Attempt, agent: Agent, run: AloneRun) -> Outcome:
    """Record how the separate process ended. If the step is done, there was no loss."""
    claim, services = attempt.claim, attempt.services
    kind = LossKind.NOT_STARTED if run.end is AloneEnd.NOT_STARTED else LossKind.DIED_ALONE
    now_ms = attempt.now_ms()
    loss = Loss(
        at_ms=now_ms, worker=run.process, kind=kind, kept_ms=now_ms - claim.now_ms, cause=run.cause, detail=run.detail
    )
    config = retry_config(agent, find_tool(claim, agent))
    wait_ms = backoff_ms(config, claim.losses - 1, services.rng)
    if not services.store.record_loss(claim, loss, wait_ms):
        return Continue()
    log_loss(claim, loss)
    return Defer(after_ms=wait_ms, reason=loss.explanation, counts_as_attempt=False)


def longest_ms(claim: Claim, agent: Agent) -> int:
    """How long the step may take."""
    if tool := find_tool(claim, agent):
        return int(1000 * tool.timeout_s) + GRACE_MS
    inline_s = sum(tool.timeout_s for tool in agent.tools if tool.inline)
    return int(1000 * (3 * agent.limits.call_timeout_s + inline_s)) + GRACE_MS  # it may make room, and call twice


def find_tool(claim: Claim, agent: Agent) -> Tool | None:
    """The tool of a tool step. None for a model turn, and for a tool that the agent does not have."""
    return agent.toolbox.get(claim.call.name) if claim.call else None


def retry_config(agent: Agent, tool: Tool | None) -> RetryConfig:
    """The policy of the step."""
    return (tool and tool.retry) or agent.retry_config
