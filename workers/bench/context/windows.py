"""What one call was sent, judged from outside: its size, its groups, what must be in it, what it still knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from midwatch.schemas.message import AssistantMessage, Message, ToolMessage, UserMessage
from midwatch.workers.bench.context.needed import Tally


@dataclass
class CallRow:
    """One model call. `fill` is in percent of the budget, of which the answer's reserve is a part, like all that is sent."""

    call: int
    tokens: int
    fill: float
    over_budget: bool
    split_groups: int
    goal_intact: bool
    """The active job's own prompt stands in the window, to the letter."""
    system_intact: bool
    compactions: int = 0
    """Of the session, so far."""
    ms: float = 0.0
    """Everything the fleet did for this call until the next, the model's and the measuring's time taken out."""
    facts: Tally = field(default_factory=Tally)

    def as_json(self) -> dict[str, Any]:
        """The row as it is printed."""
        row = asdict(self)
        facts = row.pop("facts")
        return {**row, "ms": round(self.ms, 3), **{f"facts_{name}": count for name, count in facts.items()}}


@dataclass(frozen=True)
class Budget:
    """What a call may hold, its answer included."""

    max_tokens: int
    reserve_tokens: int

    def fill(self, tokens: int) -> float:
        """Percent of the budget."""
        return round(100 * (tokens + self.reserve_tokens) / self.max_tokens, 1)

    def over(self, tokens: int) -> bool:
        """More than fits."""
        return tokens + self.reserve_tokens > self.max_tokens


def split_groups(messages: Sequence[Message]) -> int:
    """Groups that are not whole: a call without its result, a result without its call, two of one, or parts lying apart."""
    calls: dict[int, list[int]] = {}
    results: dict[int, list[int]] = {}
    order: list[int] = []
    for message in messages:
        if isinstance(message, AssistantMessage):
            calls.setdefault(message.group, []).extend(range(len(message.tool_calls)))
        elif isinstance(message, ToolMessage):
            results.setdefault(message.group, []).append(message.ordinal)
        if not order or order[-1] != message.group:
            order.append(message.group)
    apart = {group for group in order if order.count(group) > 1}
    uneven = {g for g in {*calls, *results} if sorted(calls.get(g, [])) != sorted(results.get(g, []))}
    return len(uneven | apart)


def goal_intact(messages: Iterable[Message], prompt: str) -> bool:
    """Whether the user's message stands there to the letter."""
    return any(isinstance(message, UserMessage) and message.text == prompt for message in messages)
