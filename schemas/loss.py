"""Losses: claims of a step that ended without a result, because the worker died, hung or was suspended."""

from __future__ import annotations

from enum import StrEnum

from midwatch.schemas.contract import Record


class LossKind(StrEnum):
    """What is known of a loss."""

    LEASE_ENDED = "lease_ended"
    """The lease ended. The worker was killed, hung or was suspended. Another step in it may be the cause."""
    NOT_STARTED = "not_started"
    """The step's separate process ended before the step began."""
    DIED_TOGETHER = "died_together"
    """The step ran in a separate process, and its lease ended: that process and its worker were lost together."""
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
        seconds = f"{self.kept_ms / 1000:.1f} s"
        match self.kind:
            case LossKind.LEASE_ENDED:
                return f"its lease, renewed for {seconds}, ended: the worker was killed, hung or was suspended"
            case LossKind.DIED_TOGETHER:
                return f"it ran alone in a process, which was lost together with its worker after {seconds}"
            case LossKind.NOT_STARTED:
                return f"its separate process did not start: {self.detail}"
            case LossKind.DIED_ALONE:
                return f"it ran alone in a process, which {self.detail}"
