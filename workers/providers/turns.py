"""The conversation as turns: what the model said, with its tool results in order, then what it was told.

Tool calls and results are paired by (group, ordinal). The providers' ids can't be used for that: real models repeat
ids for different calls (71 of 1,164 in one public record), while the vendors pair by id and refuse a repeated one. So
each call gets an id for the wire here: its own when it is usable and not taken, else one made of group and ordinal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, ToolMessage, UserMessage

_PORTABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
"""An id that every vendor takes: Anthropic allows no other characters, OpenAI at most 40 in a chat."""


class Unsendable(ValueError):
    """Raised when a request can't be put into a vendor's format: a call without a result, a schema it can't take.

    The text names places, never content.
    """

    def __init__(self, detail: str, kind: FailureKind = FailureKind.INTERNAL) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass
class Turn:
    """One model turn and what followed it; the first may have no model turn."""

    assistant: AssistantMessage | None = None
    ids: tuple[str, ...] = ()
    """Wire id of each call, by ordinal."""
    answers: dict[int, ToolMessage] = field(default_factory=dict)
    told: list[UserMessage | NoteMessage] = field(default_factory=list)

    @property
    def results(self) -> list[tuple[str, ToolMessage]]:
        """(wire id, result), in the order of the calls."""
        return [(self.ids[ordinal], self.answers[ordinal]) for ordinal in sorted(self.answers)]


def turns(messages: Iterable[Message], provider: str) -> list[Turn]:
    """Split messages into turns.

    Raises:
        Unsendable: a call has no result, or a result no call (or two).

    """
    found = [Turn()]
    by_group: dict[int, Turn] = {}
    taken: set[str] = set()
    for message in messages:
        if isinstance(message, AssistantMessage):
            found.append(Turn(message, _wire_ids(message, provider, taken)))
            by_group[message.group] = found[-1]
        elif isinstance(message, ToolMessage):
            turn = by_group.get(message.group)
            if turn is None or not 0 <= message.ordinal < len(turn.ids) or message.ordinal in turn.answers:
                raise Unsendable(f"group {message.group}: the result of call {message.ordinal} has no open call")
            turn.answers[message.ordinal] = message
        else:
            found[-1].told.append(message)
    for turn in found:
        if turn.assistant is not None and len(turn.answers) < len(turn.ids):
            missing = min(set(range(len(turn.ids))) - set(turn.answers))
            raise Unsendable(f"group {turn.assistant.group}: call {missing} has no result; every call needs one")
    return found if found[0].told else found[1:]


def made_up_id(messages: Iterable[Message], ordinal: int) -> str:
    """An id for a call that came without one: stable for the same conversation."""
    turn = sum(isinstance(message, AssistantMessage) for message in messages)
    return f"call_{turn}_{ordinal}"


def _wire_ids(message: AssistantMessage, provider: str, taken: set[str]) -> tuple[str, ...]:
    ids = []
    for ordinal, call in enumerate(message.tool_calls):
        own = message.provider == provider and call.id != ""
        wire_id = call.id if own or _PORTABLE_ID.fullmatch(call.id) else f"call_{message.group}_{ordinal}"
        if wire_id in taken:
            wire_id = f"call_{message.group}_{ordinal}"
        # Groups are unique in a session; a second one of the same number is only met in hand-made histories.
        for again in range(2, len(taken) + 3):
            if wire_id not in taken:
                break
            wire_id = f"call_{message.group}_{ordinal}_{again}"
        taken.add(wire_id)
        ids.append(wire_id)
    return tuple(ids)
