"""The losses of a step, for people: in the log, in the failure, and in the tries of a dead letter."""

from __future__ import annotations

import structlog

from midwatch.orchestration.protocol.claims import Claim
from midwatch.schemas.deadletter import Try
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.loss import Loss, LossKind

NAMED = 5
"""Most lost processes that a failure names. The tries of the letter name all of them."""

log = structlog.get_logger("midwatch.step")


def log_new_loss(claim: Claim) -> None:
    """Log the loss that this claim has found, if it has found one."""
    if claim.loss_records and claim.loss_records[-1].at_ms == claim.now_ms:
        log_loss(claim, claim.loss_records[-1])


def log_loss(claim: Claim, loss: Loss) -> None:
    """Log a loss. The line names the process that was lost."""
    log.warning(
        "step.lost", job_id=claim.ref.job_id, step=claim.ref.step, worker=loss.worker, kind=loss.kind.value,
        kept_ms=loss.kept_ms, cause=loss.cause.value, detail=loss.detail,
    )  # fmt: skip


def count_proven(claim: Claim) -> int:
    """How many losses of this step are proven to be its own."""
    return sum(loss.kind is LossKind.DIED_ALONE for loss in claim.counted_losses)


def tries_of_losses(claim: Claim) -> tuple[Try, ...]:
    """One entry for each loss of the step, with the name of the lost process."""
    return tuple(
        Try(
            at_ms=loss.at_ms,
            worker=loss.worker,
            attempt=claim.attempt,
            failure=Failure(kind=FailureKind.WORKER_LOST, detail=loss.explanation),
            loss=loss,
        )
        for loss in claim.loss_records
    )


def describe_losses(claim: Claim) -> str:
    """Say how often the step lost its worker, which processes these were, and what is known of the last loss of each kind."""
    counted = claim.counted_losses
    names = ", ".join(dict.fromkeys(loss.worker for loss in counted[-NAMED:]))
    last = {loss.kind: loss.explanation for loss in counted}
    counts = {kind: sum(loss.kind is kind for loss in counted) for kind in last}
    known = "; ".join(f"{_times(counts[kind])} {text}" for kind, text in last.items())
    return f"this step lost its worker {_times(claim.losses)}" + (f" ({names}): {known}" if known else "")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
