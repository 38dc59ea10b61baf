"""What a step commits: a model turn, results of tool calls, or the ending of a job."""

from __future__ import annotations

from dataclasses import dataclass, field

from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import AssistantMessage, NoteMessage, ToolCall, ToolMessage
from midwatch.schemas.model import Usage
from midwatch.schemas.step import StepRef
from midwatch.schemas.trace import TraceRecord


@dataclass(frozen=True)
class CallRow:
    """One tool call of a turn as it is committed."""

    ordinal: int
    call: ToolCall
    started: bool = False
    """True for an inline call, which runs under the turn's own claim. Other calls are pending, and owed to the tools queue."""


@dataclass(frozen=True)
class TurnCommit:
    """The result of a model turn after which the job goes on: the model called tools, or it must be called again."""

    messages: tuple[AssistantMessage | ToolMessage | NoteMessage, ...]
    """The assistant message, the error results of refused calls, and notes."""
    calls: tuple[CallRow, ...]
    """Calls that will run. Empty: the next model turn is owed at once."""
    usage: Usage
    trace: TraceRecord
    tool_calls: int = 0
    invalid_calls: int = 0
    children: int = 0
    is_alone: bool = False
    """The calls were not reserved in a lineage, because the job had neither parent nor children. See `TurnCommitted.ADOPTED`."""
    anchor: Anchor | None = None
    drift: tuple[str, ...] = ()
    """Names of the drift counters that this turn increments."""


@dataclass(frozen=True)
class ResultCommit:
    """The result of one or more tool calls of a turn."""

    refs: tuple[StepRef, ...]
    messages: tuple[ToolMessage, ...]
    traces: tuple[TraceRecord, ...]
    child_worked_ms: int = 0
    """How long the child job worked whose answer this is. It counts as work of this job."""


@dataclass(frozen=True)
class Bill:
    """What a worker has paid for, if no commit of a turn or of an answer carries it."""

    paid_by: str
    """Who paid: an attempt, or a compaction. What it has paid is added once."""
    usage: Usage
    invalid_calls: int = 0
    drift: tuple[str, ...] = ()
    """Names of the drift counters to increment."""


@dataclass(frozen=True)
class Ending:
    """How a job ends."""

    status: JobStatus
    output: str | None = None
    failure: Failure | None = None
    messages: tuple[AssistantMessage | ToolMessage | NoteMessage, ...] = ()
    usage: Usage = field(default_factory=Usage)
    letter: DeadLetterRecord | None = None
    """Set if and only if the status is `dead_lettered`. The session then waits until it is replayed or discarded."""
    anchor: Anchor | None = None
    repair: str = ""
    """The result that is stored for tool calls that have none when the job ends."""
    drift: tuple[str, ...] = ()
    """Names of the drift counters that the last turn increments."""
    redrive: str = ""
    """The entry of the dead letter in the index of letters to redrive. Empty if only a human may replay it."""
