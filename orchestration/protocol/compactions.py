"""A compaction as it passes between the compactor and the store: what there is to compact, and what changes."""

from __future__ import annotations

from dataclasses import dataclass, field

from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message
from midwatch.schemas.model import Usage
from midwatch.schemas.step import StepRef


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
