"""A session's structured memory: what stays of the groups that a compaction took out of the window."""

from __future__ import annotations

from pydantic import Field

from midwatch.schemas.contract import Record, Version


class Facts(Record):
    """What one place said that may be needed again: identifiers, amounts, dates, names, decisions, verbatim."""

    group: int
    """Where it was said: `recall` pages the original."""
    source: str
    """`user`, `assistant`, or the tool's name."""
    untrusted: bool
    """It came from a tool: somebody else wrote it, and it stays marked as that."""
    items: tuple[str, ...]
    label: str = ""
    """The field the items stood under (`order_id`), when they had one; it is as trusted as the items."""
    used: bool = False
    """The model has put these into a tool call: it is likelier to need them again."""


class Memory(Record):
    """Second-hand by nature, and the model is told so. Stands for the archived groups, up to `through_group`."""

    v: Version = 1
    through_group: int = 0
    summary: str = ""
    """What happened, in prose; empty with the extractive summarizer. Sentences that a tool's text is behind are marked."""
    facts: tuple[Facts, ...] = ()
    """The ledger, oldest first."""
    open_items: tuple[str, ...] = ()
    """What was asked or begun and not answered or ended. Marked like the summary."""
    compactions: int = Field(default=0, ge=0)
