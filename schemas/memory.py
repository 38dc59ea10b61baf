"""A session's structured memory: what replaces the groups that a compaction removed from the window."""

from __future__ import annotations

from pydantic import Field

from midwatch.schemas.contract import Record, Version


class Facts(Record):
    """Facts from one message that may be needed again, word for word: identifiers, amounts, dates, names, decisions."""

    group: int
    """The group of the message. The tool `recall` reads the original."""
    source: str
    """`user`, `assistant`, or the tool's name."""
    untrusted: bool
    """True if the facts come from a tool's result, which others may have written. They stay marked as that."""
    items: tuple[str, ...]
    label: str = ""
    """The name of the field that held the items, such as `order_id`. It is as trusted as the items."""
    used: bool = False
    """The model has used these facts in a tool call. It is likelier to need them again."""


class Memory(Record):
    """Replaces the archived groups up to `through_group`. The prompt warns the model that it is second-hand."""

    v: Version = 1
    through_group: int = 0
    summary: str = ""
    """What happened, in prose. Empty with the extractive summarizer. Sentences based on a tool's text are marked."""
    facts: tuple[Facts, ...] = ()
    """The facts ledger, oldest first."""
    open_items: tuple[str, ...] = ()
    """Questions without an answer, and work that was begun and not finished. They are marked like the summary."""
    compactions: int = Field(default=0, ge=0)
