"""A brain that follows a script: the n-th reply answers the n-th model turn of a conversation.

The turn is counted from the request's history, so a retried request gets the same reply. A script file (JSON or TOML):

    [[reply]]                                     # turn 1 of every conversation
    use = [{ name = "find_order", arguments = { order_id = "W1" } }]

    [[reply]]                                     # turn 2
    say = "It is on its way."

    [[conversation]]                              # conversations whose first user message contains "refund"
    says = "refund"
    [[conversation.reply]]
    turn = 3                                      # turns 1 and 2 have no reply
    say = "Refunded."

In Python: `ScriptBrain([Use([("find_order", {"order_id": "W1"})]), "It is on its way."])`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.contract import Contract, JsonObject
from midwatch.schemas.model import Stop
from midwatch.workers.simulator.brains.brain import Answer, Conversation, Say, UnexpectedCall, Use


class ScriptedCall(Contract):
    """One tool call of a reply."""

    name: str
    arguments: JsonObject | str = Field(default_factory=dict)
    """A string is sent unchanged, even if it is no valid JSON."""
    id: str | None = None


class ScriptedReply(Contract):
    """One reply: text, tool calls, or both."""

    say: str = ""
    use: tuple[ScriptedCall, ...] = ()
    stop: Stop | None = None
    turn: int | None = Field(default=None, ge=1)
    """The model turn that it answers. None means the turn after that of the previous reply."""

    def answer(self) -> Answer:
        """Convert the reply into a brain's answer."""
        if not self.use:
            return Say(self.say, stop=self.stop or Stop.END)
        ids = tuple(call.id for call in self.use if call.id is not None)
        if ids and len(ids) != len(self.use):
            raise ConfigError("script: give either every call of a reply an `id`, or none")
        return Use([(call.name, call.arguments) for call in self.use], self.say, ids, stop=self.stop or Stop.TOOLS)


class ScriptedConversation(Contract):
    """Replies for the conversations whose first user message contains `says`."""

    says: str
    reply: tuple[ScriptedReply, ...]


class Script(Contract):
    """A script file. `conversation` entries are tried in order. `reply` is for conversations that match none of them."""

    reply: tuple[ScriptedReply, ...] = ()
    conversation: tuple[ScriptedConversation, ...] = ()


Line = Answer | str | JsonObject
"""One reply of a script in Python. A str is text that the model says."""


class ScriptBrain:
    """Answers by a script. A turn without a reply is an UnexpectedCall."""

    positional = True

    def __init__(
        self, replies: Sequence[Line] = (), *, by_conversation: Mapping[str, Sequence[Line]] | None = None
    ) -> None:
        self.name = "script"
        self._branches = [(says, _number_replies(lines)) for says, lines in (by_conversation or {}).items()]
        self._branches.append(("", _number_replies(replies)))

    @classmethod
    def read(cls, path: Path) -> ScriptBrain:
        """Read a script from a `.json` or `.toml` file. Raises a ConfigError that names the problem and its place."""
        try:
            text = path.read_text("utf-8")
            data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
            script = Script.model_validate({"reply": data} if isinstance(data, list) else data)
        except (OSError, ValueError) as error:
            problem = _describe_first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise ConfigError(f"script {path}: {problem}") from error
        return cls(
            [reply.model_dump() for reply in script.reply],
            by_conversation={
                entry.says: [reply.model_dump() for reply in entry.reply] for entry in script.conversation
            },
        )

    def answer(self, conversation: Conversation) -> Answer:
        """Return the reply of this turn. Raises UnexpectedCall if the script has none."""
        opening, turn = conversation.first_user, conversation.position
        replies = next(replies for says, replies in self._branches if says in opening)
        if turn not in replies:
            there = ", ".join(map(str, sorted(replies))) or "none"
            raise UnexpectedCall(f"script: no reply for turn {turn} of this conversation; it has replies for: {there}")
        return replies[turn]


def _number_replies(lines: Sequence[Line]) -> dict[int, Answer]:
    replies: dict[int, Answer] = {}
    turn = 0
    for line in lines:
        number, answer = _parse_line(line)
        turn = number or turn + 1
        if turn in replies:
            raise ConfigError(f"script: two replies for turn {turn}; give each reply its own `turn`, or none")
        replies[turn] = answer
    return replies


def _parse_line(line: Line) -> tuple[int | None, Answer]:
    if isinstance(line, Say | Use):
        return None, line
    try:
        reply = ScriptedReply.model_validate({"say": line} if isinstance(line, str) else line)
    except ValidationError as error:
        raise ConfigError(f"script: {_describe_first_problem(error)}") from error
    return reply.turn, reply.answer()


def _describe_first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "top level"
    return f"{where}: {first['msg']} (a reply has: say, use, stop, turn)"
