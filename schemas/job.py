"""A job: what a producer enqueues, its stored record, and its result."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from midwatch.schemas.contract import Envelope, Id, Name, Record, Version
from midwatch.schemas.decision import ParkReason
from midwatch.schemas.failure import Failure
from midwatch.schemas.lineage import Bounds, Member
from midwatch.schemas.model import Usage
from midwatch.schemas.step import LivePriority, Priority, StepRef, WaitOwner

JobInput = Annotated[str, StringConstraints(min_length=1)]


class JobStatus(StrEnum):
    """A `queued` job waits for its session or a worker. The last four are endings. Only a dead-lettered job can be replayed.

    `timed_out` is an ending of releases before 0.2. Now such a job is dead-lettered.
    """

    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    COMPLETED = "completed"
    DEAD_LETTERED = "dead_lettered"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def ended(self) -> bool:
        """True if no step of the job will run, unless an operator replays its dead letter."""
        return self in (JobStatus.COMPLETED, JobStatus.DEAD_LETTERED, JobStatus.CANCELLED, JobStatus.TIMED_OUT)


class SessionPolicy(StrEnum):
    """What happens to a new job when its session is busy with another one."""

    ENQUEUE = "enqueue"
    REJECT = "reject"
    INTERRUPT = "interrupt"


class StartEnvelope(Envelope):
    """The one argument of the Celery task `midwatch.start`: how a producer in any language enqueues a job."""

    v: Version = 1
    job_id: Id
    agent: Name
    session_id: Id
    input: JobInput
    idempotency_key: Id | None = None
    tenant: Id | None = None
    priority: LivePriority = "normal"
    traceparent: str | None = Field(default=None, max_length=256)
    """The producer's trace, as in W3C Trace Context. The log events of the job's steps get its `trace_id`. An invalid one is
    ignored."""


class Parent(Record):
    """What started a child job: the tool step that waits for its answer, or a producer's `enqueue(parent=...)`."""

    ref: StepRef
    root_id: Id
    depth: int = Field(ge=0)
    ancestors: tuple[Member, ...] = ()
    """The parent, then its parent, and so on up to the root. Empty in a job of an earlier release."""
    time_left_ms: int | None = None
    """What was left of the parent's working time (`session_timeout_s`) when the child was enqueued."""
    total_left_ms: int | None = None
    """What was left until the parent's `deadline_s`."""


class NewJob(Record):
    """A job as it is passed to the store. It holds the limits of its agent as numbers."""

    v: Version = 1
    job_id: Id
    agent: Name
    agent_version: str
    session_id: Id
    input: JobInput
    tenant: Id | None = None
    priority: Priority = Priority.NORMAL
    parent: Parent | None = None
    traceparent: str | None = None
    max_steps: int = Field(gt=0)
    timeout_ms: int = Field(gt=0)
    """How long the job itself may work: `session_timeout_s`."""
    max_wait_ms: int | None = None
    """How long others may hold it in all: `max_wait_s`."""
    max_total_ms: int | None = None
    """How long it may take, from `enqueue` on: `deadline_s`."""
    bounds: Bounds | None = None
    """None if only the agent's name is known. A worker fills them in at the first step."""
    on_busy: SessionPolicy = SessionPolicy.ENQUEUE

    @property
    def ref(self) -> StepRef:
        """The address of the first model turn."""
        return StepRef(job_id=self.job_id, session_id=self.session_id, step="1", priority=self.priority)


class Waiting(Record):
    """What a deferred or parked job waits for, and until when. Lists of jobs show it."""

    step: str
    reason: str
    """For people."""
    kind: ParkReason | None = None
    """What a parked step asks. None for a deferred step."""
    until_ms: int | None = None
    """When the step is tried again, or when its question expires."""
    attempt: int = 0
    owner: WaitOwner | None = None
    """Who holds the job. None in records of releases before 0.2."""
    downstream: str | None = None
    """The downstream that holds it, if one does."""
    since_ms: int | None = None
    """Since when this owner has held it. Several deferrals of one turn by one owner are one hold."""
    on_expiry: str | None = None
    """What happens to a parked step when its question expires: reject, dead_letter, approve."""


class Holder(Record):
    """Who held a job last."""

    turn: int
    owner: WaitOwner
    downstream: str | None = None
    since_ms: int


class Job(Record):
    """The stored record of a job. Times are the server's, in ms since the epoch."""

    v: Version = 1
    job_id: Id
    agent: str
    agent_version: str
    session_id: Id
    root_id: Id
    parent: StepRef | None = None
    ancestors: tuple[Member, ...] = ()
    """The parent, then its parent, and so on up to the root."""
    time_left_ms: int | None = None
    """What was left of the parent's working time when this job was enqueued."""
    total_left_ms: int | None = None
    """What was left until the parent's `deadline_s` when this job was enqueued."""
    bounds: Bounds | None = None
    """Its limits that bind its descendants too. None before the first step of a job that was enqueued by name."""
    depth: int = 0
    tenant: str | None = None
    priority: Priority = Priority.NORMAL
    """Of its steps. A bulk replay and a redrive change it to `replay`."""
    status: JobStatus
    turn: int = 0
    """Number of model turns begun. `max_steps` limits it."""
    open_calls: int = 0
    """Tool calls of the current turn that have no result yet."""
    max_steps: int
    created_ms: int
    started_ms: int | None = None
    deadline_ms: int | None = None
    """When `session_timeout_s` has passed, if the job works from now on. It moves by what others take."""
    ends_by_ms: int | None = None
    """When `deadline_s` has passed."""
    finished_ms: int | None = None
    working: int = 0
    """Number of its steps that workers run now."""
    held_ms: int = 0
    """How long others held the job, up to its last claim. See `count_held_ms`."""
    held_since_ms: int | None = None
    """Others hold the job from this time on, while it does not work."""
    max_worked_ms: int | None = None
    """How long it may work in all. A replay grants more."""
    max_held_ms: int | None = None
    """How long others may hold it in all. A replay grants more. None: no bound."""
    holder: Holder | None = None
    """Who held it last."""
    usage: Usage = Usage()
    tool_calls: int = 0
    invalid_calls: int = 0
    children: int = 0
    """Children that its tool calls started."""
    adopted: tuple[str, ...] = ()
    """Children that producers enqueued with `parent=`."""
    granted_steps: int = 0
    """Model turns that replays granted."""
    retries: int = 0
    redrives: int = 0
    """How often its dead letters were replayed without a human, since a human last replayed one."""
    waiting: Waiting | None = None
    output: str | None = None
    failure: Failure | None = None
    traceparent: str | None = None

    @property
    def shares_limits(self) -> bool:
        """Is it in a lineage with other jobs?"""
        return self.parent is not None or self.children > 0 or bool(self.adopted)

    def count_held_ms(self, now_ms: int) -> int:
        """How long others have held the job: downstreams, humans, waiting children, a lack of workers."""
        if self.status.ended or self.working or self.held_since_ms is None:
            return self.held_ms
        return self.held_ms + max(0, now_ms - self.held_since_ms)

    def count_worked_ms(self, now_ms: int) -> int:
        """How long the job itself has worked: its calls, its tools, its own backoff, and its children's work."""
        if self.deadline_ms is None or self.max_worked_ms is None:
            return 0
        until_ms = self.finished_ms if self.status.ended and self.finished_ms else now_ms
        if not self.status.ended and not self.working and self.held_since_ms is not None:
            until_ms = min(until_ms, self.held_since_ms)
        return max(0, until_ms - (self.deadline_ms - self.max_worked_ms))
