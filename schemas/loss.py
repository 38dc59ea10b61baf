"""Losses: claims of a step that ended without a result, because the worker died, hung or was suspended."""

from __future__ import annotations

from enum import StrEnum

from midwatch.schemas.contract import Record


class LossKind(StrEnum):
    """What is known of a loss."""

    NOT_BEGUN = "not_begun"
    """The lease ended and was never renewed. The work had hardly begun, so the loss says nothing about the step."""
    LEASE_ENDED = "lease_ended"
    """The lease ended during the work. The worker was killed, hung or was suspended. Another step may be the cause."""
    NOT_STARTED = "not_started"
    """The step's separate process ended before the step began."""
    DIED_ALONE = "died_alone"
    """The step's separate process died during the step, and its worker lived. This is a proof: nothing else ran in it."""


class Loss(Record):
    """One loss. It is stored with the step until the step is done."""

    at_ms: int
    """When it was noticed, by the server's time."""
    worker: str
    """The process that was lost: host and pid."""
    kind: LossKind
    kept_ms: int = 0
    """How long the lease was renewed."""
    detail: str = ""
    """How the process ended, if that is known."""

    @property
    def explanation(self) -> str:
        """What is known, in words."""
        match self.kind:
            case LossKind.NOT_BEGUN:
                return "its lease ended before the work had begun: the worker was killed, hung or was suspended"
            case LossKind.LEASE_ENDED:
                return (
                    f"its lease ended {self.kept_ms / 1000:.1f} s after the claim: "
                    "the worker was killed, hung or was suspended"
                )
            case LossKind.NOT_STARTED:
                return f"its separate process did not start: {self.detail}"
            case LossKind.DIED_ALONE:
                return f"it ran alone in a process, which {self.detail}"
