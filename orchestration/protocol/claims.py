"""A claim on a step: what a worker gets, or why the claim is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.schemas.decision import HumanDecision
from midwatch.schemas.job import Job
from midwatch.schemas.loss import Loss
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message, ToolCall
from midwatch.schemas.step import StepRef


class ClaimRefusal(StrEnum):
    """Why a claim is refused and the worker has nothing to do."""

    GONE = "gone"
    """There is no such step: it has ended, or its records have expired."""
    BUSY = "busy"
    """Another worker has the step, and its lease has not ended."""
    EARLY = "early"
    """The step is deferred and not due yet."""
    NOT_YET = "not_yet"
    """Another job of the session is active."""
    ABSENT = "absent"
    """There is no record of the job."""
    WRONG_SESSION = "wrong_session"
    """The job belongs to another session. The message is poison: nothing was read or written."""


@dataclass(frozen=True)
class LogMark:
    """How much of a session's log a worker has cached."""

    epoch: int = -1
    length: int = 0
    digest: str = ""
    """SHA-1 of the last cached entry. The server completes the copy only if its log still holds that entry."""


@dataclass(frozen=True)
class Claim:
    """A step that this worker has claimed. The claim is valid until its lease ends. The lease is renewed during the work."""

    ref: StepRef
    fence: int
    nonce: str
    now_ms: int
    """The server's time of the claim."""
    job: Job
    attempt: int
    """Failed attempts before this one."""
    losses: int
    """Earlier claims whose worker vanished, since the last attempt that ended in order."""
    interrupted: bool
    """The step's state was `started` before the claim: an earlier attempt may have had a side effect."""
    ending: str
    """'' or why the job must end now: cancelled, timed_out, deadline, max_wait, expired, step_limit, worker_lost."""
    call: ToolCall | None = None
    """The tool call, for a tool step."""
    group: int = 0
    """The open group of the session, to which this step's messages belong."""
    decision: HumanDecision | None = None
    """The human's decision on this step, when it was parked."""
    log: Sequence[Message] = ()
    """For a model step: the whole conversation, oldest first. The worker caches it, and the claim completes it."""
    log_weight: int = 0
    """The weight of `log`, from which its tokens are estimated. See `tokens.weight`."""
    flags: frozenset[str] = frozenset()
    """Session flags, e.g. `results` when some result is stored by reference."""
    memory: Memory | None = None
    """The memory that replaces the archived groups."""
    anchor: Anchor | None = None
    """The session's last call, as the provider counted it."""
    loss_records: Sequence[Loss] = ()
    """The records of the step's losses, the oldest first. They may include losses that `losses` no longer counts."""

    @property
    def counted_losses(self) -> Sequence[Loss]:
        """The records of `losses`. A worker of an earlier release leaves no record."""
        return self.loss_records[-self.losses :] if self.losses else ()
