"""Alternatives to compaction: trimming the oldest messages. They use the same conversations and counts, without a session.

Each peer trims the whole conversation before every recorded call, so that it fits the budget. A trimmed window contains
nothing from the removed messages, so `facts_kept` is 0. The figure to compare is `facts_at_hand`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from midwatch.schemas.contract import canonical_json
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, ToolMessage, UserMessage
from midwatch.workers.bench.context.counting import TokenCounter
from midwatch.workers.bench.context.needed import Tally, tally, text_of
from midwatch.workers.bench.context.transcripts import Transcript
from midwatch.workers.bench.context.windows import Budget, goal_intact, split_groups

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

Trim = Callable[[Sequence[Message], Sequence[int], int], list[Message]]
"""(conversation, tokens of each message, room in tokens) -> window."""


@dataclass(frozen=True)
class Peer:
    """One row of the table."""

    name: str
    trim: Trim
    library: str = ""
    """The required module."""


def oldest_first(messages: Sequence[Message], tokens: Sequence[int], room_tokens: int) -> list[Message]:
    """Return the newest whole groups that fit. The newest group is kept even if it does not fit."""
    start, used = len(messages), 0
    while start:
        group_start = start
        while group_start and messages[group_start - 1].group == messages[start - 1].group:
            group_start -= 1
        used += sum(tokens[group_start:start])
        if used > room_tokens and start < len(messages):
            break
        start = group_start
    return list(messages[start:])


def langchain(messages: Sequence[Message], tokens: Sequence[int], room_tokens: int) -> list[Message]:
    """Trim with LangChain's `trim_messages`: the same token counts, `strategy="last"`, start at a user or model message.

    LangChain's guide starts windows at a user message. In a job with one user message that would remove everything.
    """
    from langchain_core.messages import trim_messages

    kept = trim_messages(
        [_to_langchain(number, message) for number, message in enumerate(messages)],
        max_tokens=max(0, room_tokens),
        token_counter=lambda some: sum(tokens[int(one.id or 0)] for one in some),
        strategy="last",
        start_on=("human", "ai"),
        include_system=True,
    )
    return [messages[int(one.id or 0)] for one in kept]


def _to_langchain(number: int, message: Message) -> BaseMessage:
    from langchain_core import messages as lc

    if isinstance(message, (UserMessage, NoteMessage)):
        return lc.HumanMessage(message.text, id=str(number))
    if isinstance(message, ToolMessage):
        return lc.ToolMessage(message.content, tool_call_id=message.call_id, id=str(number))
    calls = [{"name": call.name, "args": {}, "id": call.id} for call in message.tool_calls]
    return lc.AIMessage(message.text, tool_calls=calls, id=str(number))


PEERS = (
    Peer("trim the oldest", oldest_first),
    Peer("langchain trim_messages", langchain, library="langchain_core"),
)


def measure_peer(
    peer: Peer, records: Iterable[tuple[Transcript, Budget]], counter: TokenCounter, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the peer's row. If its library is not installed, the row has `left_out` and no figures."""
    if peer.library and not importlib.util.find_spec(peer.library):
        say(f"{peer.name} is left out: {peer.library} is not installed (pip install 'midwatch[bench]')")
        return {"name": peer.name, "left_out": f"{peer.library} is not installed"}
    facts, over, split, lost, calls = Tally(), 0, 0, 0, 0
    for record, budget in records:
        fixed_tokens = counter.fixed(record.system, record.tools)
        room_tokens = budget.max_tokens - budget.reserve_tokens - fixed_tokens
        fixed = "\n".join((record.system, *(canonical_json(tool.model_dump(mode="json")) for tool in record.tools)))
        tokens = [counter.message(message) for message in record.messages]
        texts = [text_of(message) for message in record.messages]
        for at, turn in _turns(record.messages):
            before = record.messages[:at]
            window = peer.trim(before, tokens[:at], room_tokens)
            calls += 1
            over += budget.over(fixed_tokens + counter.messages(window))
            split += split_groups(window)
            prompts = [message.text for message in before if isinstance(message, UserMessage)]
            lost += bool(prompts) and not goal_intact(window, prompts[-1])
            if turn.tool_calls:
                facts += tally(turn.tool_calls, texts[:at], map(text_of, window), fixed)
    return {
        "name": peer.name,
        "calls": calls,
        "over_budget": over,
        "split_groups": split,
        "goal_lost": lost,
        "facts_named": facts.named,
        "facts_needed": facts.needed,
        "facts_kept": facts.kept,
        "facts_at_hand": facts.at_hand,
    }


def _turns(messages: Sequence[Message]) -> Iterator[tuple[int, AssistantMessage]]:
    """Yield each model turn with the number of messages before it."""
    for at, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            yield at, message
