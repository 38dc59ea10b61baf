"""What a brain is: it sees one request, free of any vendor's shape, and says what the model answers.

A brain is asked once per request and must be a function of the conversation it is shown: a retried request gets the
same answer, in whatever order requests arrive and however many are under way.

A rule set is the smallest brain, a callable:

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
"""Who speaks in a turn. `note` is the runtime speaking to the model: a system or developer message in mid-conversation,
or a `<reminder>` paragraph in a user text, which is how clients say it where that is not accepted."""

SPOILED_ID = "_spoiled"
"""How the id of a tool call ends that the server made invalid on purpose; see `Conversation.position`."""


class UnexpectedCall(Exception):
    """Raised by a brain that has no answer to this request. The server answers 500 with the text, and counts it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call in the history, as the client sent it back."""

    id: str
    name: str
    arguments: str
    """JSON text: byte for byte what came on the OpenAI wires; on Anthropic, which carries an object, that object dumped
    in its own key order."""

    @property
    def input(self) -> JsonObject:
        """The arguments decoded; empty when they are not a JSON object (a malformed call in the history)."""
        try:
            value = json.loads(self.arguments or "{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Turn:
    """One contribution to the conversation. Each result of parallel calls is a turn of its own, in call order."""

    role: Role
    text: str = ""
    calls: tuple[Call, ...] = ()
    """What an assistant turn asked for."""
    call: Call | None = None
    """What a tool turn answers. Never None there: a result that answers nothing is refused before a brain sees it."""
    is_error: bool = False
    """The tool turn reports a failure: Anthropic's flag; on the OpenAI wires, which have none, text that begins with
    `ERROR:`, in any case."""

    @property
    def tool(self) -> str:
        """Name of the tool whose result this is; empty for any other turn."""
        return self.call.name if self.call else ""


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """A tool the model may call."""

    name: str
    description: str = ""
    input_schema: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One request: everything a model would be shown."""

    wire: str
    """`anthropic-messages`, `openai-responses` or `openai-chat`."""
    model: str
    system: str
    turns: tuple[Turn, ...]
    tools: tuple[ToolOffer, ...] = ()
    force_tool: str | None = None
    """The tool that must be called now, when the client names one."""
    output_schema: JsonObject | None = None
    """The JSON Schema that the text of the answer must satisfy, when the client gives one."""
    max_output_tokens: int | None = None

    @property
    def turn(self) -> int:
        """Which model turn is asked for: the assistant turns already in the request, plus one. The first is 1."""
        return 1 + sum(turn.role == "assistant" for turn in self.turns)

    @property
    def position(self) -> int:
        """`turn`, not counting turns whose tool call the server had made invalid on purpose: they are asked for again.

        What a brain that answers by position (script, transcript) counts by. A rule set reads the history instead.
        """
        spoiled = sum(any(call.id.endswith(SPOILED_ID) for call in turn.calls) for turn in self.turns)
        return self.turn - spoiled

    @property
    def first_user(self) -> str:
        """What the user said first: how a conversation is recognised. Empty when no user has spoken."""
        return next((turn.text for turn in self.turns if turn.role == "user"), "")

    @property
    def last_user(self) -> str:
        """What the user said last."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user"), "")

    @property
    def last(self) -> Turn | None:
        """The latest turn, whoever spoke."""
        return self.turns[-1] if self.turns else None

    @property
    def since_user(self) -> tuple[Turn, ...]:
        """All turns after the user's latest: what was done about what the user asked for last."""
        ends = [number for number, turn in enumerate(self.turns) if turn.role == "user"]
        return self.turns[ends[-1] + 1 :] if ends else self.turns

    @property
    def key(self) -> str:
        """Its name in the journal and in decisions about faults: a digest of `first_user`, so no prompt is kept."""
        return hashlib.sha256(self.first_user.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def calls(self, tool: str | None = None) -> tuple[Call, ...]:
        """Every call made so far, oldest first; of one tool, or of all."""
        return tuple(call for turn in self.turns for call in turn.calls if tool is None or call.name == tool)

    def results(self, tool: str | None = None) -> tuple[Turn, ...]:
        """Every tool result so far, errors included, oldest first; of one tool, or of all."""
        return tuple(turn for turn in self.turns if turn.role == "tool" and (tool is None or turn.tool == tool))

    def offers(self, name: str) -> bool:
        """Whether the client offers a tool of that name."""
        return any(tool.name == name for tool in self.tools)


@dataclass(frozen=True, slots=True)
class Say:
    """The model answers with text and is done."""

    text: str
    stop: Stop = Stop.END
    """LENGTH, REFUSAL, PAUSE, CONTEXT_FULL are told in each vendor's words."""


@dataclass(frozen=True, slots=True)
class Use:
    """The model calls tools, several at once if it likes, perhaps with a word to go with it."""

    calls: Sequence[tuple[str, Mapping[str, object] | str]]
    """(tool, arguments) in order. Arguments are a dict, or raw text that is sent as it is, valid JSON or not.
    Anthropic's wire carries decoded JSON: text that is none becomes `{}` there, as it does at the vendor."""
    text: str = ""
    ids: Sequence[str] = ()
    """Ids for the calls, in the same order. Without: the server makes them, the same ones for the same turn."""
    stop: Stop = Stop.TOOLS
    """LENGTH makes a reply whose calls must not run: the model was cut off."""

    def __post_init__(self) -> None:
        if self.ids and len(self.ids) != len(self.calls):
            raise ValueError(
                f"Use: expected an id for each call or none, got {len(self.ids)} for {len(self.calls)} calls"
            )


Answer = Say | Use


class Brain(Protocol):
    """Answers requests."""

    name: str
    """What `health` and the log call it."""
    positional: bool
    """True when answers are found by `Conversation.position`: then invalid tool calls are given only when asked for."""

    def answer(self, conversation: Conversation) -> Answer:
        """What the model says to this; raises UnexpectedCall when there is no answer to it.

        Called on the server's event loop: must not block.
        """
        ...
