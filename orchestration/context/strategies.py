"""What a compaction does to a conversation: one class for each `on_overflow`, and its registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.context.cut import Cut, cut, size_bytes
from midwatch.orchestration.context.elide import elide
from midwatch.orchestration.context.fact_ledger import absorb_facts
from midwatch.orchestration.context.recall import pack_group
from midwatch.orchestration.context.restore import whole_handle
from midwatch.orchestration.context.summarize import Ask, summarize
from midwatch.orchestration.protocol.compactions import Compaction, CompactionWork
from midwatch.orchestration.tokens.weight import weigh_message
from midwatch.orchestration.tools.result_pages import pack
from midwatch.orchestration.tools.results import new_handle
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import AssistantMessage, Message, ToolMessage, UserMessage
from midwatch.schemas.model import Usage

MEMORY_SHARE = 0.5
"""Of the target, the part that the memory may take: the rest is for messages, which say more."""

NOTE_BYTES = 2.5
"""Bytes of a note for one of weight: a ledger of ids and numbers is dense."""

MIN_CUT = 150
"""A message is not cut to less weight than that."""

CUT_TRIES = 4
"""What is left of a cut message may be denser than the whole was; so often it is cut again at most."""

LARGE_SHARE = 0.8
"""A message larger than this part of the room is cut: beside it nothing would fit."""


@dataclass(frozen=True)
class Room:
    """The budget as a weight (see `weight`)."""

    full: int
    """All that is sent."""
    target: int
    """What messages and memory may take after a compaction."""


class Strategy(Protocol):
    """Plans a compaction. Pure but for a model that may be asked."""

    def compact(self, work: CompactionWork, agent: Agent, room: Room, ask: Ask) -> Compaction:
        """What to change, so that messages and memory keep to the room's target."""
        ...


class Nothing:
    """Leaves all as it is: gives the lock back."""

    def compact(self, work: CompactionWork, agent: Agent, room: Room, ask: Ask) -> Compaction:
        """See `Strategy.compact`."""
        return Compaction()


class SummarizeAndTrim:
    """Elide bulky old results; when that is not enough, turn the oldest groups into memory; cut what is too large by itself."""

    remembers = True

    def compact(self, work: CompactionWork, agent: Agent, room: Room, ask: Ask) -> Compaction:
        """See `Strategy.compact`."""
        share = int(max(0, room.target) * MEMORY_SHARE)
        memory_bytes = int(share * NOTE_BYTES)
        plan = _Plan(work, room.target - share)
        plan.cut_large()
        if self.remembers and plan.excess > 0:
            plan.elide()
        leaving: list[int] = []
        if plan.excess > 0:
            leaving = plan.oldest()
            plan.cut_newest(set(leaving))
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
        changed = memory != (work.memory or Memory())
        return Compaction(
            memory=memory if changed else None,
            removed=tuple(leaving),
            replaced=tuple((at, said) for at, said in sorted(plan.replaced.items()) if at not in set(leaving)),
            results=tuple(plan.results.items()),
            archived=tuple(_archived(gone)),
            usage=usage,
        )


class TrimOldest(SummarizeAndTrim):
    """The oldest groups leave; nothing of them stays but the way back to the originals."""

    remembers = False


STRATEGIES: dict[str, Strategy] = {
    "none": Nothing(),
    "summarize_and_trim": SummarizeAndTrim(),
    "trim_oldest": TrimOldest(),
    "escalate": SummarizeAndTrim(),  # once a human said so
    "fail": SummarizeAndTrim(),  # never by a turn; when an operator says so
}
"""By the name in `ContextBudget.on_overflow`."""


class _Plan:
    """A conversation as it would be, in the order of the log."""

    def __init__(self, work: CompactionWork, room: int) -> None:
        self.work = work
        self.room = room
        """What messages may weigh."""
        self.messages: list[Message] = list(work.messages)
        self.weights = list(work.weights)
        self.replaced: dict[int, Message] = {}
        self.results: dict[str, bytes] = {}
        self.elided: list[Message] = []
        """Originals whose facts the memory takes over."""
        self.newest_group = max(message.group for message in work.messages)
        asked = [at for at, message in enumerate(work.messages) if isinstance(message, UserMessage)]
        self.prompt_at = asked[-1] if asked else -1
        """The active job's own prompt: it never leaves."""

    @property
    def excess(self) -> int:
        """Weight that has to go."""
        return sum(self.weights) - self.room

    def handle(self, message: Message, at: int) -> str:
        """A name for the original of a message: another one when the message is cut again, for the first text is its whole."""
        ordinal = message.ordinal if isinstance(message, ToolMessage) else 0
        return new_handle(self.work.ref.job_id, f"{message.group}-{ordinal}-{at}-{self.work.epoch}")

    def cut_large(self) -> None:
        """No single message may leave no room for any other."""
        most = max(MIN_CUT, int(self.room * LARGE_SHARE))
        for at in range(len(self.messages)):
            self._cut(at, most)

    def cut_newest(self, leaving: set[int]) -> None:
        """When the newest group alone is too large, its largest messages are cut, the largest first, until it fits."""
        staying = [at for at in range(len(self.messages)) if at not in leaving]
        for at in sorted(staying, key=lambda at: self.weights[at], reverse=True):
            if at == self.prompt_at:
                continue
            excess = sum(self.weights[one] for one in staying) - self.room
            if excess <= 0:
                return
            fair = max(MIN_CUT, self.room // max(1, len(staying)))
            self._cut(at, max(fair, self.weights[at] - excess))

    def _cut(self, at: int, most: int) -> None:
        if self.weights[at] <= most:
            return
        message = self.work.messages[at]  # not what is left of it: what is kept under the handle must be the whole
        handle = self.handle(message, at)
        shorter = _cut_to(message, most, handle)
        if shorter.message == message:
            return
        if shorter.rest is not None:  # else the whole lies under its handle already
            self.results[handle] = pack(shorter.rest)
            if isinstance(message, AssistantMessage):
                self.results[whole_handle(handle)] = pack(message.model_dump_json(exclude_none=True))
        if at not in self.replaced:
            self.elided.append(self.work.messages[at])
        self._replace(at, shorter.message)

    def elide(self) -> None:
        """Old, bulky results become stubs, as many as are needed."""
        order = {id(message): at for at, message in enumerate(self.messages)}
        for one in elide(
            self.messages,
            self.excess,
            newest_group=self.newest_group,
            handle_for=lambda message: self.handle(message, order[id(message)]),
        ):
            if not one.kept_already:
                self.results[one.message.handle or ""] = pack(one.original.content)
            self._replace(one.index, one.message)
            self.elided.append(one.original)

    def _replace(self, at: int, message: Message) -> None:
        self.messages[at] = self.replaced[at] = message
        self.weights[at] = weigh_message(message)

    def oldest(self) -> list[int]:
        """Indexes of the groups that leave: all but the prompt and the newest ones that fit, of which there is one at least."""
        groups: dict[int, list[int]] = {}
        for at, message in enumerate(self.messages):
            if at != self.prompt_at:
                groups.setdefault(message.group, []).append(at)
        used = self.weights[self.prompt_at] if self.prompt_at >= 0 else 0
        kept: set[int] = set()
        for group in sorted(groups, reverse=True):
            used += sum(self.weights[at] for at in groups[group])
            if kept and used > self.room:
                break
            kept.add(group)
        return [at for at, message in enumerate(self.messages) if message.group not in kept and at != self.prompt_at]


def _cut_to(message: Message, most: int, handle: str) -> Cut:
    """The message cut until it weighs no more than `most`, or nearly: a cut counts bytes."""
    room_bytes, weight = size_bytes(message), weigh_message(message)
    shorter = Cut(message, None)
    for _ in range(CUT_TRIES):
        room_bytes = room_bytes * most // max(1, weight)
        shorter = cut(message, room_bytes, handle)
        weight = weigh_message(shorter.message)
        if weight <= most:
            break
    return shorter


def _archived(gone: Sequence[Message]) -> list[tuple[int, bytes]]:
    groups: dict[int, list[Message]] = {}
    for message in gone:
        groups.setdefault(message.group, []).append(message)
    return [(group, pack_group(messages)) for group, messages in groups.items()]
