"""What people do instead of compacting: trim the oldest. The same conversations, the same counts, no session around it.

Each trims before every recorded call, from the whole conversation, into what the budget leaves for messages. A window
that was trimmed says nothing that it does not show, so of what is needed from the rest nothing is kept: the figure to
compare is how much of all that the calls name is at hand.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from midwatch.schemas.contract import canonical_json
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, ToolMessage, UserMessage
from midwatch.workers.bench.context.counting import TokenCounter
from midwatch.workers.bench.context.needed import Tally, said, tally
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
    """The module that must be installed."""


def oldest_first(messages: Sequence[Message], tokens: Sequence[int], room_tokens: int) -> list[Message]:
    """The newest whole groups that fit; the newest of all even if it does not."""
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
    """LangChain's `trim_messages` with its counter ours, `strategy="last"`, beginning at a user's or a model's message.

    Its guide begins windows at a user's message; in a job with one of those, that leaves nothing at all.
    """
    from langchain_core.messages import trim_messages

    kept = trim_messages(
        [_theirs(number, message) for number, message in enumerate(messages)],
        max_tokens=max(0, room_tokens),
        token_counter=lambda some: sum(tokens[int(one.id or 0)] for one in some),
        strategy="last",
        start_on=("human", "ai"),
        include_system=True,
    )
    return [messages[int(one.id or 0)] for one in kept]


def _theirs(number: int, message: Message) -> BaseMessage:
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


def trimmed(
    peer: Peer, records: Iterable[tuple[Transcript, Budget]], counter: TokenCounter, say: Callable[[str], None]
) -> dict[str, Any]:
    """The peer's row; with `left_out` and no figures when its library is not installed."""
    if peer.library and not importlib.util.find_spec(peer.library):
        say(f"{peer.name} is left out: {peer.library} is not installed (pip install 'midwatch[bench]')")
        return {"name": peer.name, "left_out": f"{peer.library} is not installed"}
    facts, over, split, lost, calls = Tally(), 0, 0, 0, 0
    for record, budget in records:
        fixed_tokens = counter.fixed(record.system, record.tools)
        room_tokens = budget.max_tokens - budget.reserve_tokens - fixed_tokens
        fixed = "\n".join((record.system, *(canonical_json(tool.model_dump(mode="json")) for tool in record.tools)))
        tokens = [counter.message(message) for message in record.messages]
        texts = [said(message) for message in record.messages]
        for at, turn in _turns(record.messages):
            before = record.messages[:at]
            window = peer.trim(before, tokens[:at], room_tokens)
            calls += 1
            over += budget.over(fixed_tokens + counter.messages(window))
            split += split_groups(window)
            asked = [message.text for message in before if isinstance(message, UserMessage)]
            lost += bool(asked) and not goal_intact(window, asked[-1])
            if turn.tool_calls:
                facts += tally(turn.tool_calls, texts[:at], map(said, window), fixed)
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
    """Each model turn, and how many messages came before it."""
    for at, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            yield at, message
