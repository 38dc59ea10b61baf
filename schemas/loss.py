"""Losses: claims of a step that ended without a result, because the worker died, hung or was suspended."""

from __future__ import annotations

from enum import StrEnum

from midwatch.schemas.contract import Record

LEAST_RENEWED_MS = 100
"""A lease that was kept for less was not renewed: its first renewal comes later."""


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


class LossCause(StrEnum):
    """How the lost process ended, as far as that is known."""

    OUT_OF_MEMORY = "out_of_memory"
    """SIGKILL, and the kernel has counted a process that it killed for memory."""
    KILLED = "killed"
    """SIGKILL, and the kernel has counted no such process: a person or another program sent it."""
    KILLED_OR_OUT_OF_MEMORY = "killed_or_out_of_memory"
    """SIGKILL. The kernel's counter can't be read here."""
    CRASHED = "crashed"
    """A signal that native code causes: SIGSEGV, SIGABRT and others."""
    SIGNALLED = "signalled"
    """Another signal, sent by a person or a program."""
    EXITED = "exited"
    """The step's code ended the process."""
    HUNG = "hung"
    """It did not end in time, and its worker killed it."""
    UNKNOWN = "unknown"
    """Only the lease shows the loss."""


class Loss(Record):
    """One loss. It is stored with the step until the step is done."""

    at_ms: int
    """When it was noticed, by the server's time."""
    worker: str
    """The process that was lost: host and pid."""
    kind: LossKind
    kept_ms: int = 0
    """How long the lease was renewed."""
    cause: LossCause = LossCause.UNKNOWN
    detail: str = ""
    """How the process ended, if that is known, in words."""

    @property
    def explanation(self) -> str:
        """What is known, in words."""
        seconds = f"{self.kept_ms / 1000:.1f} s"
        renewed = f", renewed for {seconds}," if self.kept_ms >= LEAST_RENEWED_MS else ""
        match self.kind:
            case LossKind.LEASE_ENDED:
                return f"its lease{renewed} ended; its worker was killed, hung, was suspended or was cut off"
            case LossKind.DIED_TOGETHER:
                return f"it ran alone in a process, which was lost together with its worker after {seconds}"
            case LossKind.NOT_STARTED:
                return f"its separate process did not start: {self.detail}"
            case LossKind.DIED_ALONE:
                return f"it ran alone in a process, which {self.detail}"
