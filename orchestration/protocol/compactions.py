"""A compaction as the compactor and the store exchange it: what there is to compact, and what changes."""

from __future__ import annotations

from dataclasses import dataclass, field

from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message
from midwatch.schemas.model import Usage
from midwatch.schemas.step import StepRef


@dataclass(frozen=True)
class CompactionWork:
    """The input of a compaction that has begun: the conversation of the session, which is now locked."""

    ref: StepRef
    nonce: str
    epoch: int
    active_job: str
    memory: Memory | None
    anchor: Anchor | None
    messages: tuple[Message, ...]
    """The messages of the session's log, in its order. So an index into this tuple is also an index into the log."""
    weights: tuple[int, ...]
    """The weight of each message. See `tokens.weight`."""
    last_digest: str
    """SHA-1 of the log's last entry. The log must still hold that entry when the compaction is committed."""


@dataclass(frozen=True)
class Compaction:
    """What a compaction changes."""

    memory: Memory | None = None
    """The new memory. None leaves the memory unchanged."""
    removed: tuple[int, ...] = ()
    """Indexes of the messages to remove from the log. They are whole groups."""
    replaced: tuple[tuple[int, Message], ...] = ()
    """Messages that were elided or cut, by index."""
    results: tuple[tuple[str, bytes], ...] = ()
    """Handle and full body of each message that was elided or cut."""
    archived: tuple[tuple[int, bytes], ...] = ()
    """Number of each archived group, and its packed originals."""
    usage: Usage = field(default_factory=Usage)
    """Tokens that the summarizer used. They count for the job."""
    is_prompt_cut: bool = False
    """True if the active job's prompt was cut, because it does not fit into a call."""

    @property
    def empty(self) -> bool:
        """True if nothing is removed or replaced."""
        return not self.removed and not self.replaced
