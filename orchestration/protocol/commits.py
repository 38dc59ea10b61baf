"""What passes between the step machine and its store: a claim and its verdict, commits, endings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, ToolCall, ToolMessage
from midwatch.schemas.model import Usage
from midwatch.schemas.step import StepRef
from midwatch.schemas.trace import TraceRecord


class Verdict(StrEnum):
    """What a claim came to."""

    CLAIMED = "claimed"
    GONE = "gone"
    """No such job or step: it is over, or its retention has passed."""
    BUSY = "busy"
    """Someone else holds a live lease."""
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
    verdict: str = ""
    """A human's decision on this call: '', 'approved', or 'rejected:' and why."""
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


@dataclass(frozen=True)
class CallRow:
    """One tool call of a turn as it is committed."""

    ordinal: int
    call: ToolCall
    started: bool = False
    """Inline: started under the turn's own claim. Otherwise pending, and owed to the tools queue."""


@dataclass(frozen=True)
class TurnCommit:
    """The result of a model turn that goes on: it asked for tools, or must be asked again."""

    messages: tuple[AssistantMessage | ToolMessage | NoteMessage, ...]
    """The assistant message, results of calls that were refused before running, notes."""
    calls: tuple[CallRow, ...]
    """Calls that will run. Empty: the next model turn is owed at once."""
    usage: Usage
    trace: TraceRecord
    tool_calls: int = 0
    invalid_calls: int = 0
    children: int = 0
    anchor: Anchor | None = None
    drift: tuple[str, ...] = ()
    """Counters of `drift` that this turn adds one to each."""


@dataclass(frozen=True)
class ResultCommit:
    """The result of one or more tool calls of a turn."""

    refs: tuple[StepRef, ...]
    messages: tuple[ToolMessage, ...]
    traces: tuple[TraceRecord, ...]


@dataclass(frozen=True)
class Ending:
    """How a job ends."""

    status: JobStatus
    output: str | None = None
    failure: Failure | None = None
    messages: tuple[AssistantMessage | ToolMessage | NoteMessage, ...] = ()
    usage: Usage = field(default_factory=Usage)
    letter: DeadLetterRecord | None = None
    """Present exactly when status is dead_lettered: the session is held for the replay."""
    anchor: Anchor | None = None
    repair: str = ""
    """What open calls are answered with when the job ends around them."""
    drift: tuple[str, ...] = ()
    """Counters of `drift` that the last turn adds one to each."""


@dataclass(frozen=True)
class CompactionWork:
    """A compaction that was begun: the session's lock is ours, and this is all there is to compact."""

    ref: StepRef
    nonce: str
    epoch: int
    active_job: str
    memory: Memory | None
    anchor: Anchor | None
    messages: tuple[Message, ...]
    """In the order of the store's log: a message's place is its index there."""
    weights: tuple[int, ...]
    """One for each message. See `weight`."""
    last_digest: str
    """SHA-1 of the last entry: the log must still hold it when the compaction is committed."""


@dataclass(frozen=True)
class Compaction:
    """What a compaction changes."""

    memory: Memory | None = None
    """None: it stays as it is."""
    removed: tuple[int, ...] = ()
    """Indexes of the messages that leave the log. Whole groups."""
    replaced: tuple[tuple[int, Message], ...] = ()
    """Messages that were elided or cut, by index."""
    results: tuple[tuple[str, bytes], ...] = ()
    """Handle and body of what was elided or cut."""
    archived: tuple[tuple[int, bytes], ...] = ()
    """Group and its originals, packed."""
    usage: Usage = field(default_factory=Usage)
    """Of the summarizer: the job pays for it."""

    @property
    def empty(self) -> bool:
        """It frees nothing."""
        return not self.removed and not self.replaced
