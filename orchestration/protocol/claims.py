"""A claim on a step: what a worker gets, or why there is nothing to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.schemas.decision import HumanDecision
from midwatch.schemas.job import Job
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message, ToolCall
from midwatch.schemas.step import StepRef


class ClaimRefusal(StrEnum):
    """Why a claim found nothing to do."""

    GONE = "gone"
    """No such job or step: it is over, or its retention has passed."""
    BUSY = "busy"
    """Another worker holds a live lease."""
    EARLY = "early"
    """Deferred; its time has not come."""
    NOT_YET = "not_yet"
    """Another job of the session is active."""


class RowState(StrEnum):
    """State of one step. For a tool call these are the states of the ledger: pending, started, done, unknown."""

    PENDING = "pending"
    STARTED = "started"
    PARKED = "parked"
    WAITING = "waiting"
    """A child job is under way."""
    DEAD = "dead"


@dataclass(frozen=True)
class LogMark:
    """How much of a session's log a worker already holds."""

    epoch: int = -1
    length: int = 0
    digest: str = ""
    """SHA-1 of the last entry: a copy is only completed when the server's log still holds it."""


@dataclass(frozen=True)
class Claim:
    """A step that is ours: under `fence`, until the lease runs out (it is renewed while we work)."""

    ref: StepRef
    fence: int
    nonce: str
    now_ms: int
    """The server's time of the claim."""
    job: Job
    attempt: int
    """Failed attempts before this one."""
    losses: int
    """Earlier claims whose worker vanished."""
    interrupted: bool
    """The row was `started` when we took it: an effect may have happened."""
    ending: str
    """'' or why the job must end now: cancelled, timed_out, step_limit, worker_lost."""
    call: ToolCall | None = None
    """For a tool step."""
    group: int = 0
    """The open group of the session: what this step's messages belong to."""
    decision: HumanDecision | None = None
    """The human's decision on this step, when it was parked."""
    log: Sequence[Message] = ()
    """For a model step: the whole conversation, oldest first (cached by the worker, completed by the claim)."""
    log_weight: int = 0
    """Of `log`: what the token estimate is made from. See `weight`."""
    flags: frozenset[str] = frozenset()
    """Session flags, e.g. `results` when some result is stored by reference."""
    memory: Memory | None = None
    """What stays of the groups that were archived."""
    anchor: Anchor | None = None
    """The session's last call, as the provider counted it."""
