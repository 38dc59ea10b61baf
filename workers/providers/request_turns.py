"""Splits a conversation into turns: a model message, the results of its tool calls, and the messages that follow.

Tool calls and results are paired by (group, ordinal). The providers' ids can't be used for that. Real models repeat
ids for different calls (71 of 1,164 in one public record), but vendors pair by id and refuse a repeated one. So each
call gets a unique id here: see `history.call_ids`.

Every vendor refuses a call without a result, a result without a call, and some refuse two model messages in a row. A
damaged log may hold them. So what is missing is added here, marked as such, and any log can be sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, Opaque, ToolCall, ToolMessage, UserMessage
from midwatch.workers.providers.history.call_ids import OPENAI_IDS, IdRule, choose_call_ids

NO_RESULT = "No result of this call was recorded."
"""The result of a call that has none in the log."""

GO_ON = "Go on."
"""A note after a model turn that is followed by no other message. Mistral and newer Claude models refuse a request that ends
with a model message; chat templates refuse two of them in a row."""


class Unsendable(ValueError):
    """Raised when a request can't be written in a vendor's format, e.g. because of its output schema.

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


def split_into_turns(messages: Iterable[Message], provider: str, rule: IdRule = OPENAI_IDS) -> list[RequestTurn]:
    """Split messages into turns in which each call has exactly one result.

    Args:
        messages: The conversation, in order.
        provider: The provider that is asked. It accepts most ids that its own models made.
        rule: The ids that the provider accepts.

    """
    found = [RequestTurn()]
    by_group: dict[int, RequestTurn] = {}
    taken: set[str] = set()

    def begin(message: AssistantMessage) -> RequestTurn:
        ids = choose_call_ids(message, rule, taken, is_own=message.provider == provider)
        found.append(RequestTurn(message, ids))
        return found[-1]

    for message in messages:
        if isinstance(message, AssistantMessage):
            by_group[message.group] = begin(message)
        elif isinstance(message, ToolMessage):
            turn = by_group.get(message.group)
            if turn is None or not 0 <= message.ordinal < len(turn.call_ids):
                begin(_invent_call(message)).results_by_ordinal[0] = message
            else:
                turn.results_by_ordinal.setdefault(message.ordinal, message)  # the model has seen the first one
        else:
            found[-1].inputs.append(message)
    for turn in found:
        _complete(turn, is_last=turn is found[-1])
    return found if found[0].inputs else found[1:]


def make_call_id(messages: Iterable[Message], ordinal: int) -> str:
    """Make an id for a call that came without one. The same conversation gives the same id."""
    turn = sum(isinstance(message, AssistantMessage) for message in messages)
    return f"call_{turn}_{ordinal}"


def has_open_server_call(message: AssistantMessage) -> bool:
    """Did the vendor pause in a call of its own tool? It goes on only if its message is the last one of the request."""
    blocks = [part.raw for part in message.parts if isinstance(part, Opaque)]
    answered = {block.get("tool_use_id") for block in blocks}
    return any(block.get("type") == "server_tool_use" and block.get("id") not in answered for block in blocks)


def _invent_call(result: ToolMessage) -> AssistantMessage:
    """Make a call for a result whose call is not in the log. As a result, the model trusts its content no more than before."""
    call = ToolCall(id="", name=result.tool, raw_arguments="{}")
    return AssistantMessage(group=result.group, parts=(call,), provider="", model="")


def _complete(turn: RequestTurn, *, is_last: bool) -> None:
    """Add the results that are missing. If nothing follows a model message, add a note."""
    if turn.assistant is None:
        return
    for ordinal, call in enumerate(turn.assistant.tool_calls):
        if ordinal not in turn.results_by_ordinal:
            turn.results_by_ordinal[ordinal] = ToolMessage(
                group=turn.assistant.group,
                ordinal=ordinal,
                call_id=call.id,
                tool=call.name,
                content=NO_RESULT,
                is_error=True,
            )
    is_paused = is_last and has_open_server_call(turn.assistant)
    if not turn.call_ids and not turn.inputs and not is_paused:
        turn.inputs.append(NoteMessage(group=turn.assistant.group, text=GO_ON))
