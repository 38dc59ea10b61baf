"""What a step commits: a turn, results of tool calls, the ending of a job."""

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
