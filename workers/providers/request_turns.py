"""Splits a conversation into turns: a model message, the results of its tool calls, and the messages that follow.

Tool calls and results are paired by (group, ordinal). The providers' ids can't be used for that. Real models repeat
ids for different calls (71 of 1,164 in one public record), but vendors pair by id and refuse a repeated one. So each
call gets a unique id here. It is the call's own id if the vendor accepts it and no earlier call has it. Otherwise it
is made from group and ordinal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, ToolMessage, UserMessage

_PORTABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
"""An id that every vendor accepts. Anthropic allows only these characters; OpenAI's chat allows at most 40."""


class Unsendable(ValueError):
    """Raised when a request can't be written in a vendor's format, e.g. because a tool call has no result.

    The message says where the problem is. It never quotes content.
    """

    def __init__(self, detail: str, kind: FailureKind = FailureKind.INTERNAL) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass
class RequestTurn:
    """One model message and what followed it. In the first turn, `assistant` may be None."""

    assistant: AssistantMessage | None = None
    call_ids: tuple[str, ...] = ()
    """The id sent to the vendor for each call, by ordinal."""
    results_by_ordinal: dict[int, ToolMessage] = field(default_factory=dict)
    inputs: list[UserMessage | NoteMessage] = field(default_factory=list)

    @property
    def results(self) -> list[tuple[str, ToolMessage]]:
        """(call id, result) in the order of the calls."""
        return [
            (self.call_ids[ordinal], self.results_by_ordinal[ordinal]) for ordinal in sorted(self.results_by_ordinal)
        ]


def split_into_turns(messages: Iterable[Message], provider: str) -> list[RequestTurn]:
    """Split messages into turns.

    Raises:
        Unsendable: a call has no result or two results, or a result has no call.

    """
    found = [RequestTurn()]
    by_group: dict[int, RequestTurn] = {}
    taken: set[str] = set()
    for message in messages:
        if isinstance(message, AssistantMessage):
            found.append(RequestTurn(message, _choose_call_ids(message, provider, taken)))
            by_group[message.group] = found[-1]
        elif isinstance(message, ToolMessage):
            turn = by_group.get(message.group)
            if (
                turn is None
                or not 0 <= message.ordinal < len(turn.call_ids)
                or message.ordinal in turn.results_by_ordinal
            ):
                raise Unsendable(f"group {message.group}: the result of call {message.ordinal} has no open call")
            turn.results_by_ordinal[message.ordinal] = message
        else:
            found[-1].inputs.append(message)
    for turn in found:
        if turn.assistant is not None and len(turn.results_by_ordinal) < len(turn.call_ids):
            missing = min(set(range(len(turn.call_ids))) - set(turn.results_by_ordinal))
            raise Unsendable(f"group {turn.assistant.group}: call {missing} has no result; each call needs one")
    return found if found[0].inputs else found[1:]


def make_call_id(messages: Iterable[Message], ordinal: int) -> str:
    """Make an id for a call that came without one. The same conversation gives the same id."""
    turn = sum(isinstance(message, AssistantMessage) for message in messages)
    return f"call_{turn}_{ordinal}"


def _choose_call_ids(message: AssistantMessage, provider: str, taken: set[str]) -> tuple[str, ...]:
    ids = []
    for ordinal, call in enumerate(message.tool_calls):
        own = message.provider == provider and call.id != ""
        call_id = call.id if own or _PORTABLE_ID.fullmatch(call.id) else f"call_{message.group}_{ordinal}"
        if call_id in taken:
            call_id = f"call_{message.group}_{ordinal}"
        # Group numbers are unique in a session. Only a hand-written history can repeat one.
        for again in range(2, len(taken) + 3):
            if call_id not in taken:
                break
            call_id = f"call_{message.group}_{ordinal}_{again}"
        taken.add(call_id)
        ids.append(call_id)
    return tuple(ids)
