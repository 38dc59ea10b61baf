"""What MemoryStore holds: jobs, sessions and their steps as plain objects, and the few moves that its verbs share."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from midwatch.orchestration.errors import NotFound
from midwatch.orchestration.ports import Clock
from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.protocol.claims import Claim, RowState
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.decision import HumanDecision
from midwatch.schemas.job import Job, JobStatus, NewJob, Waiting
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message, ToolCall, ToolMessage
from midwatch.schemas.step import StepRef
from midwatch.schemas.trace import TraceRecord


@dataclass
class Row:
    """One step of the current turn."""

    state: RowState = RowState.PENDING
    fence: int = 0
    until_ms: int = 0
    """The end of the lease when started, else when it is due."""
    attempt: int = 0
    losses: int = 0
    nonce: str = ""
    begun: bool = False
    """It had begun under an earlier claim whose worker vanished: an effect may have happened."""
    decision: HumanDecision | None = None
    call: ToolCall | None = None
    why: Waiting | None = None
    """What a parked step asks."""


@dataclass
class JobState:
    """A job: its record, and what the record does not show."""

    record: Job
    input: str
    timeout_ms: int
    rows: dict[str, Row] = field(default_factory=dict)
    trace: list[TraceRecord] = field(default_factory=list)
    fence: int = 0
    committed: tuple[str, int] = ("", 0)
    """The last model turn that was committed: step and fence."""
    cancel: bool = False
    discarded: bool = False

    @classmethod
    def of(cls, job: NewJob, now_ms: int) -> JobState:
        """A job as it is enqueued."""
        record = Job(
            job_id=job.job_id,
            agent=job.agent,
            agent_version=job.agent_version,
            session_id=job.session_id,
            root_id=job.parent.root_id if job.parent else job.job_id,
            parent=job.parent.ref if job.parent else None,
            depth=job.parent.depth if job.parent else 0,
            tenant=job.tenant,
            priority=job.priority,
            status=JobStatus.QUEUED,
            max_steps=job.max_steps,
            created_ms=now_ms,
            traceparent=job.traceparent,
        )
        return cls(record, job.input, job.timeout_ms)

    def update(self, **changes: Any) -> None:
        """Replace fields of the record."""
        self.record = self.record.model_copy(update=changes)

    def ref(self, step: str) -> StepRef:
        """The address of one of its steps."""
        record = self.record
        return StepRef(job_id=record.job_id, session_id=record.session_id, step=step, priority=record.priority)

    def steps(self) -> list[str]:
        """Steps that have a row, in order of their ordinals."""
        return sorted(self.rows, key=lambda step: -1 if (ordinal := self.ref(step).ordinal) is None else ordinal)

    def parked(self) -> list[str]:
        """Steps that wait for a human, in order."""
        return [step for step in self.steps() if self.rows[step].state is RowState.PARKED]


@dataclass
class SessionState:
    """A conversation, and the jobs that want it."""

    active: str | None = None
    waiting: deque[str] = field(default_factory=deque)
    groups: int = 0
    flags: set[str] = field(default_factory=set)
    log: list[Message] = field(default_factory=list)
    originals: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """By place (`archive`, `results`) and name, the oldest first."""
    memory: Memory | None = None
    anchor: Anchor | None = None
    epoch: int = 0
    lock: tuple[str, int] = ("", 0)
    """Who compacts, and until when at the most."""

    def keep(self, place: str, name: str, body: bytes) -> None:
        """Keep an original; said twice, the second takes the place of the first."""
        self.originals[place, name] = body

    def bound_originals(self, most_bytes: int) -> None:
        """The oldest leave until no more than that is kept; the newest stays."""
        over_bytes = sum(map(len, self.originals.values())) - most_bytes
        while over_bytes > 0 and len(self.originals) > 1:
            over_bytes -= len(self.originals.pop(next(iter(self.originals))))

    def conversation(self) -> tuple[Message, ...]:
        """The log as it is sent: results come in the order the fleet finished them, and go in that of their calls."""
        sent: list[Message] = []
        for _, run in groupby(self.log, key=lambda m: (m.group, isinstance(m, ToolMessage))):
            sent += sorted(run, key=lambda m: m.ordinal if isinstance(m, ToolMessage) else 0)
        return tuple(sent)


class MemoryState:
    """Everything one fleet knows, in one process. Not thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.jobs: dict[str, JobState] = {}
        self.homes: dict[str, str] = {}
        """Job -> session: the first enqueue that is not refused decides, so one id never becomes two jobs."""
        self.sessions: dict[str, SessionState] = {}
        self.due: dict[StepRef, int] = {}
        self.owed: dict[StepRef, int] = {}
        self.letters: dict[str, DeadLetterRecord] = {}
        self.counters: Counter[str] = Counter()
        self.drift: Counter[str] = Counter()

    @property
    def now_ms(self) -> int:
        """The time of this fleet's server."""
        return self.clock.monotonic_ms()

    def job(self, job_id: str) -> JobState:
        """A job. Raises NotFound."""
        if job_id not in self.jobs:
            raise NotFound(f"no job {job_id!r}: it was never enqueued here; there are {', '.join(self.jobs) or 'none'}")
        return self.jobs[job_id]

    def session(self, job: JobState) -> SessionState:
        """The session of a job."""
        return self.sessions[job.record.session_id]

    def held(self, claim: Claim, ref: StepRef | None = None) -> Row | None:
        """The row of a step that the claim holds; None when someone else has it, or it is over."""
        ref = ref or claim.ref
        job = self.jobs.get(ref.job_id)
        row = job.rows.get(ref.step) if job else None
        holds = row and row.fence == claim.fence and row.state in (RowState.STARTED, RowState.WAITING)
        return row if holds else None

    def owe(self, ref: StepRef) -> StepRef:
        """The step must be published now, and again when nobody claims it."""
        self.due.pop(ref, None)
        self.owed[ref] = self.now_ms
        return ref

    def settle(self, ref: StepRef) -> None:
        """Nothing of the step has to be published any more."""
        self.due.pop(ref, None)
        self.owed.pop(ref, None)

    def end_steps(self, job: JobState, text: str) -> None:
        """End every step there is; open calls are answered with `text`."""
        session = self.session(job)
        for step in job.steps():
            call, ref = job.rows[step].call, job.ref(step)
            if call is not None and ref.ordinal is not None:
                answer = ToolMessage(
                    group=session.groups,
                    ordinal=ref.ordinal,
                    call_id=call.id,
                    tool=call.name,
                    content=text,
                    is_error=True,
                )
                session.log.append(answer)
            self.settle(ref)
        job.rows.clear()
        job.update(open_calls=0)

    def hand_over(self, session: SessionState) -> tuple[StepRef, ...]:
        """Give the session to the next job in line: its first step, or nothing."""
        session.active = session.waiting.popleft() if session.waiting else None
        return (self.owe(self.jobs[session.active].ref("1")),) if session.active else ()
