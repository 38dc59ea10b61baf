"""The extractive summarizer: needs no model, keeps facts and open items, and is deterministic. It is also the fallback."""

from __future__ import annotations

from collections.abc import Sequence

from midwatch.orchestration.context.fact_ledger import absorb_facts
from midwatch.orchestration.context.open_items import open_items
from midwatch.orchestration.context.render import rendered_bytes
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message

PROSE_SHARE = 0.3
"""Largest share of a memory that summary and open items may take together. The facts ledger gets the rest."""


class ExtractiveSummarizer:
    """Keeps facts and statements verbatim. It writes no prose, so it can't invent anything."""

    def summarize(
        self,
        memory: Memory,
        groups: Sequence[Message],
        room_bytes: int,
        *,
        live: Sequence[Message] = (),
        pinned: str = "",
    ) -> Memory:
        """Make the memory after `groups` left the window. Rendered, it fits `room_bytes`, or is the empty note of 350 bytes.

        Args:
            memory: The memory so far.
            groups: The messages of the groups that are archived, in order.
            room_bytes: Largest size of the rendered note.
            live: The messages that stay in the window. Their facts are not repeated.
            pinned: Text that always stays: system prompt, goal.

        """
        after = advance_memory(memory, groups, summary=memory.summary, items=open_items(memory.open_items, groups))
        return absorb_facts(limit_prose(after, room_bytes), groups, room_bytes, live=live, pinned=pinned)


def advance_memory(memory: Memory, groups: Sequence[Message], *, summary: str, items: Sequence[str]) -> Memory:
    """The memory after one more compaction, with a new summary and new open items. Its facts are unchanged."""
    return memory.model_copy(
        update={
            "through_group": max([memory.through_group, *(message.group for message in groups)]),
            "summary": summary,
            "open_items": tuple(items),
            "compactions": memory.compactions + 1,
        }
    )


def limit_prose(memory: Memory, room_bytes: int) -> Memory:
    """Drop the oldest open items, and then the end of the summary, until both fit their share of the memory."""
    bare = memory.model_copy(update={"facts": (), "summary": "", "open_items": ()})
    share_bytes = min(room_bytes, rendered_bytes(bare) + int(room_bytes * PROSE_SHARE))
    prose = bare.model_copy(update={"summary": memory.summary, "open_items": memory.open_items})
    while prose.open_items and rendered_bytes(prose) > share_bytes:
        prose = prose.model_copy(update={"open_items": prose.open_items[1:]})
    lines = prose.summary.splitlines()
    while lines and rendered_bytes(prose) > share_bytes:
        del lines[-max(1, len(lines) // 8) :]
        prose = prose.model_copy(update={"summary": "\n".join(lines)})
    return memory.model_copy(update={"summary": prose.summary, "open_items": prose.open_items})
