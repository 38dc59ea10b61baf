"""A step: its address, its kinds, and the only five ways it may end."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from midwatch.schemas.contract import Contract, Envelope, Id
from midwatch.schemas.decision import ParkReason
from midwatch.schemas.failure import Failure


class StepKind(StrEnum):
    """What a step does; each kind is one Celery task on one queue."""

    MODEL = "model"
    TOOL = "tool"
    COMPACT = "compact"
    JUDGE = "judge"


class Priority(StrEnum):
    """Which of a queue's lists a step waits in; a higher one is always served first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


StepId = Annotated[str, StringConstraints(pattern=r"^\d{1,6}(\.\d{1,4}|c)?$")]
"""`3` is the third model turn, `3.0` its first tool call, `3c` the compaction that was found necessary at it."""


class StepRef(Envelope):
    """The address of one step: all that a Celery message carries."""

    job_id: Id
    session_id: Id
    step: StepId
    priority: Priority = Priority.NORMAL

    @property
    def turn(self) -> int:
        """The model turn this step is, or belongs to. The first is 1."""
        return int(self.step.rstrip("c").partition(".")[0])

    @property
    def ordinal(self) -> int | None:
        """Which call of the turn, from 0; None for the model turn itself."""
        _, dot, ordinal = self.step.partition(".")
        return int(ordinal) if dot else None

    @property
    def kind(self) -> StepKind:
        """As the step id says."""
        if self.step.endswith("c"):
            return StepKind.COMPACT
        return StepKind.TOOL if "." in self.step else StepKind.MODEL

    def model_turn(self, turn: int) -> StepRef:
        """The address of model turn number `turn` of the same job."""
        return self.model_copy(update={"step": str(turn)})

    def compaction(self) -> StepRef:
        """The address of a compaction of the session, found necessary at this turn."""
        return self.model_copy(update={"step": f"{self.turn}c"})

    def call(self, ordinal: int) -> StepRef:
        """The address of call number `ordinal` of this turn."""
        return self.model_copy(update={"step": f"{self.turn}.{ordinal}"})


class Continue(Contract):
    """The step is done; these come next (none when other steps of the turn are still under way)."""

    kind: Literal["continue"] = "continue"
    next: tuple[StepRef, ...] = ()


class Complete(Contract):
    """The job is done: a validated output."""

    kind: Literal["complete"] = "complete"
    output: str


class Defer(Contract):
    """Not now. A refusal by admission does not count as an attempt; a failure does."""

    kind: Literal["defer"] = "defer"
    after_ms: int
    reason: str
    counts_as_attempt: bool
    failure: Failure | None = None
    wakes: bool = False
    """It waits in a downstream's line: the coordinator brings it back, and `after_ms` is only for when that fails."""


class Park(Contract):
    """A human decides."""

    kind: Literal["park"] = "park"
    question: str
    reason: ParkReason


class DeadLetter(Contract):
    """Will not be tried again; everything needed to try stays where it is."""

    kind: Literal["dead_letter"] = "dead_letter"
    failure: Failure


Outcome = Annotated[Continue | Complete | Defer | Park | DeadLetter, Field(discriminator="kind")]
