"""A brain gets one request, independent of the vendor, and decides what the model answers.

A brain is called once per request. Its answer must depend on the conversation only. So a retried request gets the same
answer, even if many requests arrive at the same time.

The simplest brain is a rule set, which is a callable:

    def rules(conversation: Conversation) -> Say | Use:
        found = conversation.results("find_order")
        if not found:
            return Use([("find_order", {"order_id": "W1"})])
        return Say(f"Your order: {found[-1].text}")
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop

Role = Literal["user", "assistant", "tool", "note"]
"""The author of a turn. A `note` is from the runtime: a system or developer message inside the conversation, or a
`<reminder>` paragraph in a user text. Clients use reminders for vendors that do not accept such messages."""

SPOILED_ID = "_spoiled"
"""Suffix of the id of a tool call that the server made invalid on purpose. See `Conversation.position`."""


class UnexpectedCall(Exception):
    """Raised by a brain that has no answer to a request. The server answers 500 with the message, and counts the call."""


@dataclass(frozen=True, slots=True)
class SimulatedCall:
    """One tool call in the history that the client sent."""

    id: str
    name: str
    arguments: str
    """JSON text. In OpenAI's formats, it is exactly the text that the client sent. Anthropic's format has an object
    instead, which is written as JSON with its keys in the same order."""

    @property
    def input(self) -> JsonObject:
        """The parsed arguments. Empty if they are no JSON object."""
        try:
            value = json.loads(self.arguments or "{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class ConversationTurn:
    """One message of the conversation. Each result of parallel calls is a separate turn, in the order of the calls."""

    role: Role
    text: str = ""
    calls: tuple[SimulatedCall, ...] = ()
    """The tool calls of an assistant turn."""
    call: SimulatedCall | None = None
    """The call whose result a tool turn contains. It is never None there, because a result without a call is refused."""
    is_error: bool = False
    """True if the tool turn reports an error. Anthropic's format has a flag for it. In OpenAI's formats, the text begins
    with `ERROR:`, in upper or lower case."""

    @property
    def tool(self) -> str:
        """Name of the tool in a tool turn. Empty for other turns."""
        return self.call.name if self.call else ""


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """A tool that the model may call."""

    name: str
    description: str = ""
    input_schema: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One request: everything that a model would receive."""

    vendor_format: str
    """`anthropic-messages`, `openai-responses` or `openai-chat`."""
    model: str
    system: str
    turns: tuple[ConversationTurn, ...]
    tools: tuple[ToolOffer, ...] = ()
    force_tool: str | None = None
    """The tool that the client forces the model to call, if any."""
    output_schema: JsonObject | None = None
    """The JSON Schema of the answer's text, if the client gives one."""
    max_output_tokens: int | None = None

    @property
    def turn(self) -> int:
        """The number of the requested model turn: the assistant turns in the request, plus one. The first is 1."""
        return 1 + sum(turn.role == "assistant" for turn in self.turns)

    @property
    def position(self) -> int:
        """`turn` without the turns that the server spoiled on purpose, because the client requests those again.

        Positional brains (script, transcript) answer by this number. A rule set reads the history instead.
        """
        spoiled = sum(any(call.id.endswith(SPOILED_ID) for call in turn.calls) for turn in self.turns)
        return self.turn - spoiled

    @property
    def first_user(self) -> str:
        """Text of the first user message, which identifies the conversation. Empty if there is none."""
        return next((turn.text for turn in self.turns if turn.role == "user"), "")

    @property
    def last_user(self) -> str:
        """Text of the last user message. Empty if there is none."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user"), "")

    @property
    def last(self) -> ConversationTurn | None:
        """The latest turn of any role."""
        return self.turns[-1] if self.turns else None

    @property
    def since_user(self) -> tuple[ConversationTurn, ...]:
        """All turns after the latest user message."""
        ends = [number for number, turn in enumerate(self.turns) if turn.role == "user"]
        return self.turns[ends[-1] + 1 :] if ends else self.turns

    @property
    def key(self) -> str:
        """The name of the conversation in the journal and for faults. It is a digest of `first_user`, so it hides the text."""
        return hashlib.sha256(self.first_user.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def calls(self, tool: str | None = None) -> tuple[SimulatedCall, ...]:
        """Return the calls so far, oldest first, of one tool or of all tools."""
        return tuple(call for turn in self.turns for call in turn.calls if tool is None or call.name == tool)

    def results(self, tool: str | None = None) -> tuple[ConversationTurn, ...]:
        """Return the tool results so far, including errors, oldest first, of one tool or of all tools."""
        return tuple(turn for turn in self.turns if turn.role == "tool" and (tool is None or turn.tool == tool))

    def offers(self, name: str) -> bool:
        """Return True if the client offers a tool of that name."""
        return any(tool.name == name for tool in self.tools)


@dataclass(frozen=True, slots=True)
class Say:
    """The model answers with text and ends its turn."""

    text: str
    stop: Stop = Stop.END
    """The reason why the model stopped. It is written with each vendor's own name for it."""


@dataclass(frozen=True, slots=True)
class Use:
    """The model calls one or more tools. It may also write text."""

    calls: Sequence[tuple[str, Mapping[str, object] | str]]
    """(tool, arguments) in order. Arguments are a dict, or a text that is sent unchanged, even if it is no valid JSON.
    Anthropic's format has no text here, so text that is no valid JSON becomes `{}`, as it does at Anthropic."""
    text: str = ""
    ids: Sequence[str] = ()
    """Ids of the calls, in the same order. If empty, the server makes ids. The same turn always gets the same ids."""
    stop: Stop = Stop.TOOLS
    """LENGTH means that the model was cut off, so the client must not run the calls."""

    def __post_init__(self) -> None:
        if self.ids and len(self.ids) != len(self.calls):
            raise ValueError(
                f"Use: expected an id for each call or none, got {len(self.ids)} for {len(self.calls)} calls"
            )


Answer = Say | Use


class Brain(Protocol):
    """Answers requests."""

    name: str
    """The name in `health` and in the log."""
    positional: bool
    """True if the brain answers by `Conversation.position`. Its tool calls are spoiled only if `spoil_positional` is set."""

    def answer(self, conversation: Conversation) -> Answer:
        """Answer a conversation. Raises UnexpectedCall if there is no answer.

        The server calls this in its event loop, so it must not block.
        """
        ...
