"""The result of a step that ran alone in a separate process."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from midwatch.schemas.loss import LossCause


def alone(nonce: str) -> str:
    """The nonce with which a separate process continues its worker's claim. It shows in the row that the step runs alone."""
    return f"{nonce}+"


class AloneEnd(StrEnum):
    """How the process ended."""

    DONE = "done"
    """The process brought the step to an outcome, or could not claim it, or could not reach the store."""
    DIED = "died"
    """The process died during the step, or did not react any more and was killed."""
    NOT_STARTED = "not_started"
    """The process ended before the step began."""
    NO_ROOM = "no_room"
    """No process was started, because this worker runs as many as it may."""


@dataclass(frozen=True)
class AloneRun:
    """What the worker knows of the process."""

    end: AloneEnd
    process: str = ""
    """Host and pid."""
    detail: str = ""
    """For people: how it ended."""
    cause: LossCause = LossCause.UNKNOWN
