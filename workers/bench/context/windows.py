"""The check of one call's window: its size, its groups, and the messages and facts that it must contain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from midwatch.schemas.message import AssistantMessage, Message, ToolMessage, UserMessage
from midwatch.workers.bench.context.needed import Tally


@dataclass
class CallFigures:
    """One model call. `fill` is the percentage of the budget that the request and the answer's reserve use."""

    call: int
    tokens: int
    fill: float
    over_budget: bool
    split_groups: int
    goal_intact: bool
    """Does the window contain the active job's prompt unchanged?"""
    system_intact: bool
    compactions: int = 0
    """Compactions of the session so far."""
    ms: float = 0.0
    """Time of the fleet's work until the next call, without the time of the model and of the measurement."""
    cached_tokens: int = 0
    """Tokens of the beginning that is equal to that of the call before, so that a prompt cache could serve them."""
    facts: Tally = field(default_factory=Tally)
    said: Tally = field(default_factory=Tally)
    """Like `facts`, with the text of the turn instead of its calls. No rule was fitted to this count."""

    def as_json(self) -> dict[str, Any]:
        """Return the row as it is printed."""
        row = asdict(self)
        counts = {f"{what}_{name}": count for what in ("facts", "said") for name, count in row.pop(what).items()}
        return {**row, "ms": round(self.ms, 3), **counts}


@dataclass(frozen=True)
class Budget:
    """The budget of a call, with its answer."""

    max_tokens: int
    reserve_tokens: int

    def fill(self, tokens: int) -> float:
        """Return the used percentage of the budget."""
        return round(100 * (tokens + self.reserve_tokens) / self.max_tokens, 1)

    def over(self, tokens: int) -> bool:
        """Is the request over the budget?"""
        return tokens + self.reserve_tokens > self.max_tokens


def split_groups(messages: Sequence[Message]) -> int:
    """Count incomplete groups: a call without result, a result without call, a duplicate, or parts that are not adjacent."""
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
    """Do the messages contain the user's prompt unchanged?"""
    return any(isinstance(message, UserMessage) and message.text == prompt for message in messages)
