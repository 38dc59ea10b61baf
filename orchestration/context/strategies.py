"""Overflow strategies: how a compaction makes the window fit. One class for each `on_overflow`, with a registry."""

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
"""Share of the target for the memory. The rest is for messages, which hold more detail."""

NOTE_BYTES = 2.5
"""Bytes of a note per unit of weight. The ratio is low, since ids and numbers take many tokens."""

MIN_CUT = 150
"""Least weight to which a message is cut."""

CUT_TRIES = 4
"""Most attempts to cut a message. More than one is needed if the kept part has more tokens per byte than the whole."""

LARGE_SHARE = 0.8
"""A message that takes more than this share of the target is cut, so that other messages fit, too."""


@dataclass(frozen=True)
class Room:
    """The context budget in units of weight (see `weight`)."""

    full: int
    """Most weight of a whole request."""
    target: int
    """Most weight of messages and memory after a compaction."""


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
        share = int(max(0, room.target) * MEMORY_SHARE)
        memory_bytes = int(share * NOTE_BYTES)
        plan = _Plan(work, room.target - share)
        plan.cut_large()
        if self.remembers and plan.excess > 0:
            plan.elide()
        leaving: list[int] = []
        if plan.excess > 0:
            leaving = plan.find_oldest()
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
            replaced=tuple((at, message) for at, message in sorted(plan.replaced.items()) if at not in set(leaving)),
            results=tuple(plan.results.items()),
            archived=tuple(_pack_groups(gone)),
            usage=usage,
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


class _Plan:
    """The planned conversation, in the order of the log."""

    def __init__(self, work: CompactionWork, room: int) -> None:
        self.work = work
        self.room = room
        """Most weight of the messages."""
        self.messages: list[Message] = list(work.messages)
        self.weights = list(work.weights)
        self.replaced: dict[int, Message] = {}
        self.results: dict[str, bytes] = {}
        self.elided: list[Message] = []
        """Originals whose facts the memory must absorb."""
        self.newest_group = max(message.group for message in work.messages)
        prompts = [at for at, message in enumerate(work.messages) if isinstance(message, UserMessage)]
        self.prompt_at = prompts[-1] if prompts else -1
        """Index of the active job's prompt, which never leaves the window."""

    @property
    def excess(self) -> int:
        """Weight that must be freed."""
        return sum(self.weights) - self.room

    def handle(self, message: Message, at: int) -> str:
        """Make a handle for the original of a message. A later cut of the same message gets another handle."""
        ordinal = message.ordinal if isinstance(message, ToolMessage) else 0
        return new_handle(self.work.ref.job_id, f"{message.group}-{ordinal}-{at}-{self.work.epoch}")

    def cut_large(self) -> None:
        """Cut each message that would leave no room for others."""
        most = max(MIN_CUT, int(self.room * LARGE_SHARE))
        for at in range(len(self.messages)):
            self._cut(at, most)

    def cut_newest(self, leaving: set[int]) -> None:
        """Cut the largest messages that stay until all fit. This is needed if the newest group alone is too large."""
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
        message = self.work.messages[at]  # the original, so that the handle holds the whole text
        handle = self.handle(message, at)
        shorter = _cut_to(message, most, handle)
        if shorter.message == message:
            return
        if shorter.rest is not None:  # else the whole is already stored under its handle
            self.results[handle] = pack(shorter.rest)
            if isinstance(message, AssistantMessage):
                self.results[whole_handle(handle)] = pack(message.model_dump_json(exclude_none=True))
        if at not in self.replaced:
            self.elided.append(self.work.messages[at])
        self._replace(at, shorter.message)

    def elide(self) -> None:
        """Replace old, large results by stubs, as many as needed."""
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

    def find_oldest(self) -> list[int]:
        """Indexes of the messages that leave: all but the prompt and the newest groups that fit. At least one group stays."""
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
    """Cut a message until its weight is about `most`. Several attempts are needed, since a cut counts bytes."""
    room_bytes, weight = size_bytes(message), weigh_message(message)
    shorter = Cut(message, None)
    for _ in range(CUT_TRIES):
        room_bytes = room_bytes * most // max(1, weight)
        shorter = cut(message, room_bytes, handle)
        weight = weigh_message(shorter.message)
        if weight <= most:
            break
    return shorter


def _pack_groups(gone: Sequence[Message]) -> list[tuple[int, bytes]]:
    groups: dict[int, list[Message]] = {}
    for message in gone:
        groups.setdefault(message.group, []).append(message)
    return [(group, pack_group(messages)) for group, messages in groups.items()]
