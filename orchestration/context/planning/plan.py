"""The plan of one compaction: cut large messages, elide old results, choose the groups that leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from midwatch.orchestration.context.cut import Cut, cut, size_bytes
from midwatch.orchestration.context.elide import elide
from midwatch.orchestration.context.planning.room import Room
from midwatch.orchestration.context.restore import whole_handle
from midwatch.orchestration.protocol.compactions import CompactionWork
from midwatch.orchestration.tokens.weight import weigh_message
from midwatch.orchestration.tools.result_pages import pack
from midwatch.orchestration.tools.results import new_handle
from midwatch.schemas.message import AssistantMessage, Message, ToolMessage, UserMessage
from midwatch.schemas.policy import ContextBudget

MIN_CUT = 150
"""Least weight to which a message is cut."""

CUT_TRIES = 4
"""Most attempts to cut a message. More than one is needed if the kept part has more tokens per byte than the whole."""

LARGE_SHARE = 0.8
"""A message that takes more than this share of the room for messages is cut, so that other messages fit, too."""

SPARE = 150
"""Weight of an empty memory. A call that follows a compaction has one."""

GROWTH_GROUPS = 4
"""Number of groups from which the growth of a conversation is estimated."""

PROMPT_SHARE = 0.5
"""A prompt that must be cut keeps this share of a call. The rest is for the work on the prompt."""


class Plan:
    """The planned conversation, in the order of the log.

    The active prompt is cut last. First the newest group is cut. The prompt is cut only if a call still has no room for
    both.
    """

    def __init__(self, work: CompactionWork, room: Room, budget: ContextBudget, memory_share: float) -> None:
        self.work = work
        self.messages: list[Message] = list(work.messages)
        self.weights = list(work.weights)
        self.replaced: dict[int, Message] = {}
        self.results: dict[str, bytes] = {}
        self.elided: list[Message] = []
        """Originals whose facts the memory must absorb."""
        self.newest_group = max(message.group for message in work.messages)
        self.prompt_at = find_prompt(work.messages)
        """Index of the active job's prompt, which never leaves the window."""
        self.is_prompt_cut = False
        self.cut_prompt(room.most)
        self.rest = room.beside(self.prompt_weight, budget, self.find_growth())
        """Most weight of the memory and of all messages but the prompt."""
        self.memory_room = int(self.rest * memory_share)
        """The weight that the memory may always have."""
        self.room = self.rest - self.memory_room
        """Most weight of all messages but the prompt."""
        usual_room = int(max(0, room.target) * (1 - memory_share))
        fresh_room = int((room.most - self.prompt_weight - self.memory_room) * LARGE_SHARE)
        self.newest_room = max(self.room, min(usual_room, fresh_room))
        """Most weight of the newest group, which the model has not read yet. A long prompt does not make this smaller.
        """

    @property
    def prompt_weight(self) -> int:
        """The weight of the active prompt."""
        return self.weights[self.prompt_at] if self.prompt_at >= 0 else 0

    @property
    def excess(self) -> int:
        """Weight that must be freed."""
        return sum(self.weights) - self.prompt_weight - self.room

    def find_growth(self) -> int:
        """The weight that a turn adds: the mean of the newest groups."""
        groups: Counter[int] = Counter()
        for at, message in enumerate(self.work.messages):
            if at != self.prompt_at:
                groups[message.group] += self.work.weights[at]
        newest = [groups[group] for group in sorted(groups)[-GROWTH_GROUPS:]]
        return sum(newest) // max(1, len(newest))

    def find_memory_room(self, leaving: set[int]) -> int:
        """Most weight of the memory. The memory also gets the room that the remaining messages do not need."""
        staying = sum(
            self.weights[at] for at in range(len(self.messages)) if at not in leaving and at != self.prompt_at
        )
        return max(self.memory_room, self.rest - staying)

    def handle(self, message: Message, at: int) -> str:
        """Make a handle for the original of a message. A later cut of the same message gets another handle."""
        ordinal = message.ordinal if isinstance(message, ToolMessage) else 0
        return new_handle(self.work.ref.job_id, f"{message.group}-{ordinal}-{at}-{self.work.epoch}")

    def cut_prompt(self, most: int) -> None:
        """Cut the active prompt if it does not fit into a call, even with the shortest form of the newest group."""
        others = [at for at in range(len(self.messages)) if at != self.prompt_at]
        newest = [at for at in others if self.messages[at].group == self.newest_group]
        room = most - sum(min(self.weights[at], MIN_CUT) for at in newest)
        room -= SPARE if self.work.memory or others else 0
        if self.prompt_at >= 0 and self.prompt_weight > room:
            self._cut(self.prompt_at, max(MIN_CUT, int(room * PROMPT_SHARE)))
            self.is_prompt_cut = self.prompt_at in self.replaced

    def cut_large(self) -> None:
        """Cut each message that would leave no room for others. The prompt stays whole."""
        for at, message in enumerate(self.messages):
            room = self.newest_room if message.group == self.newest_group else self.room
            if at != self.prompt_at:
                self._cut(at, max(MIN_CUT, int(room * LARGE_SHARE)))

    def cut_newest(self, leaving: set[int]) -> None:
        """Cut the largest messages that stay until all fit. This is needed if the newest group alone is too large."""
        staying = [at for at in range(len(self.messages)) if at not in leaving and at != self.prompt_at]
        room = self.newest_room if len({self.messages[at].group for at in staying}) == 1 else self.room
        for at in sorted(staying, key=lambda at: self.weights[at], reverse=True):
            excess = sum(self.weights[one] for one in staying) - room
            if excess <= 0:
                return
            fair = max(MIN_CUT, room // max(1, len(staying)))
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
        used = 0
        kept: set[int] = set()
        for group in sorted(groups, reverse=True):
            used += sum(self.weights[at] for at in groups[group])
            if kept and used > self.room:
                break
            kept.add(group)
        return [at for at, message in enumerate(self.messages) if message.group not in kept and at != self.prompt_at]


def cut_prompt(log: Sequence[Message]) -> str | None:
    """The handle of the whole active prompt, if the log holds only a cut form of it."""
    at = find_prompt(log)
    prompt = log[at] if at >= 0 else None
    return prompt.handle if isinstance(prompt, UserMessage) else None


def find_prompt(messages: Sequence[Message]) -> int:
    """Index of the newest prompt in a log, or -1. While a job runs, this is its own prompt."""
    return next((at for at in reversed(range(len(messages))) if isinstance(messages[at], UserMessage)), -1)


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
