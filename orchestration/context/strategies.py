"""Overflow strategies: how a compaction makes the window fit. One class for each `on_overflow`, with a registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.context.fact_ledger import absorb_facts
from midwatch.orchestration.context.planning.plan import Plan
from midwatch.orchestration.context.planning.room import Room
from midwatch.orchestration.context.recall import pack_group
from midwatch.orchestration.context.render import rendered_bytes
from midwatch.orchestration.context.summarize import Ask, summarize
from midwatch.orchestration.context.window import note_weight
from midwatch.orchestration.protocol.compactions import Compaction, CompactionWork
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message
from midwatch.schemas.model import Usage

MEMORY_SHARE = 0.5
"""Share of the room beside the prompt that is for the memory. The rest is for messages, which hold more detail."""

NOTE_BYTES = 3.2
"""Most bytes of a note per unit of weight. A note that turns out heavier is shortened."""

NOTE_TRIES = 4
"""Most attempts to shorten a note to its room."""

NOTE_MARGIN = 1.25
"""A note of many numbers has up to a quarter more tokens than its weight says, compared with the messages that it replaces."""


class Strategy(Protocol):
    """Plans a compaction. Its only side effect is a call of the summarizer's model."""

    def compact(self, work: CompactionWork, agent: Agent, room: Room, ask: Ask) -> Compaction:
        """Plan the changes that make messages and memory fit the room's target."""
        ...


class Nothing:
    """Changes nothing. The compaction only releases its lock."""

    def compact(self, work: CompactionWork, agent: Agent, room: Room, ask: Ask) -> Compaction:
        """See `Strategy.compact`."""
        return Compaction()


class SummarizeAndTrim:
    """Cut single large messages, then elide large old results, then turn the oldest groups into memory."""

    remembers = True

    def compact(self, work: CompactionWork, agent: Agent, room: Room, ask: Ask) -> Compaction:
        """See `Strategy.compact`."""
        plan = Plan(work, room, agent.context_budget, MEMORY_SHARE)
        plan.cut_large()
        if self.remembers and plan.excess > 0:
            plan.elide()
        leaving: list[int] = []
        if plan.excess > 0:
            leaving = plan.find_oldest()
            plan.cut_newest(set(leaving))
        memory_room = plan.find_memory_room(set(leaving))
        memory_bytes = int(memory_room * NOTE_BYTES / NOTE_MARGIN)
        gone = [work.messages[at] for at in leaving]
        live = [message for at, message in enumerate(plan.messages) if at not in set(leaving)]
        memory, usage = work.memory or Memory(), Usage()
        if gone and self.remembers:
            written = summarize(work, gone, memory_bytes, agent=agent, live=live, ask=ask)
            memory, usage = written.memory, written.usage
        elif gone:
            through = max(message.group for message in gone)
            memory = memory.model_copy(update={"through_group": through, "compactions": memory.compactions + 1})
        if plan.elided and self.remembers:
            memory = absorb_facts(memory, plan.elided, memory_bytes, live=live, pinned=agent.system)
        if self.remembers and memory.facts:
            memory = fit_note(memory, memory_room, live=live, pinned=agent.system)
        changed = memory != (work.memory or Memory())
        return Compaction(
            memory=memory if changed else None,
            removed=tuple(leaving),
            replaced=tuple((at, message) for at, message in sorted(plan.replaced.items()) if at not in set(leaving)),
            results=tuple(plan.results.items()),
            archived=tuple(_pack_groups(gone)),
            usage=usage,
            is_prompt_cut=plan.is_prompt_cut,
        )


class TrimOldest(SummarizeAndTrim):
    """Drops the oldest groups. The memory holds none of their content, but `recall` can read the originals."""

    remembers = False


STRATEGIES: dict[str, Strategy] = {
    "none": Nothing(),
    "summarize_and_trim": SummarizeAndTrim(),
    "trim_oldest": TrimOldest(),
    "escalate": SummarizeAndTrim(),  # after a human approved it
    "fail": SummarizeAndTrim(),  # an operator can compact; a turn never does
}
"""Strategies by the name in `ContextBudget.on_overflow`."""


def fit_note(memory: Memory, room: int, *, live: Sequence[Message], pinned: str) -> Memory:
    """Drop the facts of the least worth until the note's weight fits its room."""
    for _ in range(NOTE_TRIES):
        weight = int(note_weight(memory) * NOTE_MARGIN)
        if weight <= room:
            break
        room_bytes = rendered_bytes(memory) * room // weight
        memory = absorb_facts(memory, (), room_bytes, live=live, pinned=pinned)
    return memory


def _pack_groups(gone: Sequence[Message]) -> list[tuple[int, bytes]]:
    groups: dict[int, list[Message]] = {}
    for message in gone:
        groups.setdefault(message.group, []).append(message)
    return [(group, pack_group(messages)) for group, messages in groups.items()]
