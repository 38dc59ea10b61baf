"""A step: its address, its kinds, and its five possible outcomes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from midwatch.schemas.contract import Contract, Envelope, Id
from midwatch.schemas.decision import ParkReason
from midwatch.schemas.failure import Failure


class StepKind(StrEnum):
    """What a step does. Each kind is one Celery task on one queue."""

    MODEL = "model"
    TOOL = "tool"
    COMPACT = "compact"
    JUDGE = "judge"


class Priority(StrEnum):
    """The priority of a job's steps. A worker always takes steps of a higher priority first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    REPLAY = "replay"
    """Below all live work: jobs of a bulk replay. No producer may ask for it."""


LivePriority = Literal["high", "normal", "low"]
"""A priority that a producer may ask for, and that may have a weight."""


class WaitOwner(StrEnum):
    """What a job waits for. Only its own waits count for `session_timeout_s`; all others count for `max_wait_s`."""

    JOB = "job"
    """Its own backoff, after a failure that counts."""
    DOWNSTREAM = "downstream"
    """A provider or service: its rate, a pause, its breaker, its place in line, an outage."""
    HUMAN = "human"
    CHILD = "child"
    """A child job that itself waits."""
    SESSION = "session"
    """Other work on its session: a compaction."""
    WORKERS = "workers"
    """A free worker."""


StepId = Annotated[str, StringConstraints(pattern=r"^\d{1,6}(\.\d{1,4}|c)?$")]
"""`3` is the third model turn, `3.0` its first tool call, `3c` the compaction that it requested."""


class StepRef(Envelope):
    """The address of one step: all that a Celery message carries."""

    job_id: Id
    session_id: Id
    step: StepId
    priority: Priority = Priority.NORMAL

    @property
    def turn(self) -> int:
        """The number of the model turn to which this step belongs. The first is 1."""
        return int(self.step.rstrip("c").partition(".")[0])

    @property
    def ordinal(self) -> int | None:
        """The index of the tool call in its turn, from 0. None for the model turn itself."""
        _, dot, ordinal = self.step.partition(".")
        return int(ordinal) if dot else None

    @property
    def kind(self) -> StepKind:
        """The kind of the step, which its id shows."""
        if self.step.endswith("c"):
            return StepKind.COMPACT
        return StepKind.TOOL if "." in self.step else StepKind.MODEL

    def model_turn(self, turn: int) -> StepRef:
        """The address of model turn number `turn` of the same job."""
        return self.model_copy(update={"step": str(turn)})

    def compaction(self) -> StepRef:
        """The address of a compaction of the session that this turn requests."""
        return self.model_copy(update={"step": f"{self.turn}c"})

    def call(self, ordinal: int) -> StepRef:
        """The address of call number `ordinal` of this turn."""
        return self.model_copy(update={"step": f"{self.turn}.{ordinal}"})


class Continue(Contract):
    """The step is done. `next` has the steps that follow. It is empty while other steps of the turn are not done."""

    kind: Literal["continue"] = "continue"
    next: tuple[StepRef, ...] = ()


class Complete(Contract):
    """The job is done. Its output is validated."""

    kind: Literal["complete"] = "complete"
    output: str


class Defer(Contract):
    """The step is put back. A failure counts as an attempt if it is the call's own fault. A refusal by the gate does not."""

    kind: Literal["defer"] = "defer"
    after_ms: int
    reason: str
    counts_as_attempt: bool
    failure: Failure | None = None
    wakes: bool = False
    """The step waits in a downstream's line. The coordinator wakes it. `after_ms` is used only if the wake-up is lost."""
    owner: WaitOwner = WaitOwner.JOB
    """What the step waits for."""
    downstream: str | None = None
    """The downstream that holds the step, if one does."""


class Park(Contract):
    """The step waits for the decision of a human."""

    kind: Literal["park"] = "park"
    question: str
    reason: ParkReason
    expires_ms: int | None = None
    """From now until the question expires. None: it does not."""
    on_expiry: Literal["reject", "dead_letter", "approve"] = "reject"
    """What happens when it expires."""


class DeadLetter(Contract):
    """The step will not be tried again. Everything that a replay needs is kept."""

    kind: Literal["dead_letter"] = "dead_letter"
    failure: Failure


Outcome = Annotated[Continue | Complete | Defer | Park | DeadLetter, Field(discriminator="kind")]
