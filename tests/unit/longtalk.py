"""A growing conversation: an agent with one tool of long results, and a model that calls it and counts its input."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from midwatch import Agent, ContextBudget, tool
from midwatch.orchestration.errors import ModelError
from midwatch.orchestration.tools.declaration import Tool
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import AssistantMessage, NoteMessage, Part, Text, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.schemas.step import StepKind
from midwatch.testing import InlineFleet

BYTES_PER_TOKEN = 3
"""Bytes per token of this model's tokenizer."""

RECALLED = "recall"


def wordy(chars: int = 1_500, says: Callable[[int], str] = lambda number: f"order W-{1000 + number}") -> Tool:
    """Make a tool with results of this size. Each result names another order."""

    @tool(idempotent=True, inline=True)
    def look_up(number: int) -> str:
        """Find an order."""
        return f"{says(number)}: " + ("all is well with it, " * (chars // 21))

    return look_up


def budget(max_tokens: int = 6_000, reserve_output: int = 500, **fields: Any) -> ContextBudget:
    """Make a small context budget."""
    return ContextBudget(max_tokens=max_tokens, reserve_output=reserve_output, **fields)


def clerk(*, tools: list[Tool] | None = None, system: str = "You help.", **fields: Any) -> Agent:
    """Make an agent with such a tool and a small budget."""
    fields.setdefault("context_budget", budget())
    return Agent("clerk", "scripted:m-1", system, tools=tools or [wordy()], **fields)


class Talker:
    """A `ports.Model` that calls `look_up` for a number of turns, then answers. `requests` has its requests."""

    name = "scripted"

    def __init__(self, turns: int, *, says: Callable[[int, ModelRequest], list[Part] | None] | None = None) -> None:
        self.turns = turns
        self.says = says or (lambda number, request: None)
        """Gives another reply for a turn (from 1), or None for the call."""
        self.requests: list[ModelRequest] = []
        self.answered = 0
        self.fail: Callable[[int, ModelRequest], Stop | FailureKind | None] = lambda number, request: None
        """Gives an error for call number n (from 1), or None."""
        self.summaries: list[ModelRequest] = []
        self.summarize: Callable[[ModelRequest], ModelReply] | None = None
        """Answers for every model other than `m-1`."""
        self.counts: Callable[[ModelRequest], int | None] = lambda request: None

    def complete(self, request: ModelRequest) -> ModelReply:
        """See `ports.Model`."""
        if request.model != "m-1":
            self.summaries.append(request)
            assert self.summarize is not None
            return self.summarize(request)
        self.requests.append(request)
        fate = self.fail(len(self.requests), request)
        if isinstance(fate, FailureKind):
            raise ModelError(Failure(kind=fate, detail="as planned"))
        if isinstance(fate, Stop):
            return self.reply(request, [], stop=fate)
        self.answered += 1
        parts = self.says(self.answered, request)
        if parts is None and self.answered <= self.turns:
            parts = [ToolCall(id="c", name="look_up", raw_arguments=json.dumps({"number": self.answered}))]
        return self.reply(request, parts or [Text(text="All done.")])

    def reply(self, request: ModelRequest, parts: list[Part], stop: Stop | None = None) -> ModelReply:
        """Return the reply, with realistic usage."""
        asks = any(isinstance(part, ToolCall) for part in parts)
        usage = Usage(input_tokens=tokens_of(request), output_tokens=20)
        return ModelReply(parts=tuple(parts), stop=stop or (Stop.TOOLS if asks else Stop.END), usage=usage, model="m-1")

    def count(self, request: ModelRequest) -> int | None:
        """See `ports.Model`."""
        return self.counts(request)

    def notes(self) -> list[NoteMessage]:
        """Return the memory notes in the requests."""
        return [first for request in self.requests if isinstance(first := request.messages[0], NoteMessage)]


def tokens_of(request: ModelRequest) -> int:
    """Return the number of tokens that the model counts for a request."""
    said = sum(len(text_of(message).encode()) for message in request.messages)
    tools = sum(len(spec.model_dump_json().encode()) for spec in request.tools)
    return (len(request.system.encode()) + tools + said) // BYTES_PER_TOKEN


def text_of(message: Any) -> str:
    """Return all the text of a message."""
    if isinstance(message, ToolMessage):
        return message.content
    if isinstance(message, AssistantMessage):
        return message.text + "".join(call.raw_arguments for call in message.tool_calls)
    return str(message.text)


class Talk:
    """One fleet with one agent and one job, to run and to inspect."""

    def __init__(self, agent: Agent, model: Talker, *, in_background: bool = True, **fleet: Any) -> None:
        self.agent, self.model = agent, model
        self.fleet = InlineFleet(agent, model=model, **fleet)
        self.asked: list[str] = []
        """Steps of the compactions that ran in the background."""
        self._in_background = in_background
        self.fleet.runner.services.request_compaction = self._compact_in_background

    def _compact_in_background(self, ref: Any) -> None:
        assert ref.kind is StepKind.COMPACT
        self.asked.append(ref.step)
        if self._in_background:
            self.fleet.published.append(ref)

    def run(self, text: str = "Look at the orders.", session_id: str = "s1") -> Any:
        """Run a job to its end."""
        self.job_id = self.fleet.enqueue(self.agent, text, session_id=session_id)
        return self.fleet.run(self.job_id)

    @property
    def compactions(self) -> int:
        """Return the number of committed compactions."""
        return self.fleet.operations.counters().get("compactions", 0)

    @property
    def memory(self) -> Memory | None:
        """Return what replaced the compacted groups."""
        return self.fleet.operations.memory("s1")

    def most_tokens(self) -> int:
        """Return the largest size of all calls, with the output reserve."""
        most = max(map(tokens_of, self.model.requests))
        return most + self.agent.context_budget.reserve_output


def prompts(request: ModelRequest) -> list[str]:
    """Return the users' texts in a request."""
    return [message.text for message in request.messages if isinstance(message, UserMessage)]
