"""A conversation that grows: an agent with one wordy tool, a model that calls it turn after turn and counts what it reads."""

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
"""Of this model's tokenizer."""

RECALLED = "recall"


def wordy(chars: int = 1_500, says: Callable[[int], str] = lambda number: f"order W-{1000 + number}") -> Tool:
    """A tool whose every result is of this size, and names an order of its own."""

    @tool(idempotent=True, inline=True)
    def look_up(number: int) -> str:
        """Find an order."""
        return f"{says(number)}: " + ("all is well with it, " * (chars // 21))

    return look_up


def budget(max_tokens: int = 6_000, reserve_output: int = 500, **fields: Any) -> ContextBudget:
    """A small one."""
    return ContextBudget(max_tokens=max_tokens, reserve_output=reserve_output, **fields)


def clerk(*, tools: list[Tool] | None = None, system: str = "You help.", **fields: Any) -> Agent:
    """An agent with the wordy tool and a small budget."""
    fields.setdefault("context_budget", budget())
    return Agent("clerk", "scripted:m-1", system, tools=tools or [wordy()], **fields)


class Talker:
    """`ports.Model`: calls `look_up` for so many turns, then answers. What it read is in `requests`."""

    name = "scripted"

    def __init__(self, turns: int, *, says: Callable[[int, ModelRequest], list[Part] | None] | None = None) -> None:
        self.turns = turns
        self.says = says or (lambda number, request: None)
        """Instead of the call of a turn (from 1), when it gives something."""
        self.requests: list[ModelRequest] = []
        self.answered = 0
        self.fail: Callable[[int, ModelRequest], Stop | FailureKind | None] = lambda number, request: None
        """What befalls call number n (from 1), when something does."""
        self.summaries: list[ModelRequest] = []
        self.summarize: Callable[[ModelRequest], ModelReply] | None = None
        """Answers for any other model than `m-1`."""
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
        """With the usage of a real one."""
        asks = any(isinstance(part, ToolCall) for part in parts)
        usage = Usage(input_tokens=tokens_of(request), output_tokens=20)
        return ModelReply(parts=tuple(parts), stop=stop or (Stop.TOOLS if asks else Stop.END), usage=usage, model="m-1")

    def count(self, request: ModelRequest) -> int | None:
        """See `ports.Model`."""
        return self.counts(request)

    def notes(self) -> list[NoteMessage]:
        """The memory as each call was sent it, where there was one."""
        return [first for request in self.requests if isinstance(first := request.messages[0], NoteMessage)]


def tokens_of(request: ModelRequest) -> int:
    """What the model counts for a request."""
    said = sum(len(text_of(message).encode()) for message in request.messages)
    tools = sum(len(spec.model_dump_json().encode()) for spec in request.tools)
    return (len(request.system.encode()) + tools + said) // BYTES_PER_TOKEN


def text_of(message: Any) -> str:
    """All the text of a message."""
    if isinstance(message, ToolMessage):
        return message.content
    if isinstance(message, AssistantMessage):
        return message.text + "".join(call.raw_arguments for call in message.tool_calls)
    return str(message.text)


class Talk:
    """One fleet, one agent, one job: run, and looked at."""

    def __init__(self, agent: Agent, model: Talker, *, beside: bool = True, **fleet: Any) -> None:
        self.agent, self.model = agent, model
        self.fleet = InlineFleet(agent, model=model, **fleet)
        self.asked: list[str] = []
        """Steps of the compactions that were set off beside the job."""
        self._beside = beside
        self.fleet.runner.services.request_compaction = self._compact_beside

    def _compact_beside(self, ref: Any) -> None:
        assert ref.kind is StepKind.COMPACT
        self.asked.append(ref.step)
        if self._beside:
            self.fleet.published.append(ref)

    def run(self, text: str = "Look at the orders.", session_id: str = "s1") -> Any:
        """A job to its end."""
        self.job_id = self.fleet.enqueue(self.agent, text, session_id=session_id)
        return self.fleet.run(self.job_id)

    @property
    def compactions(self) -> int:
        """That were committed."""
        return self.fleet.operations.counters().get("compactions", 0)

    @property
    def memory(self) -> Memory | None:
        """What stands for the groups that were compacted."""
        return self.fleet.operations.memory("s1")

    def most_tokens(self) -> int:
        """Of all calls, the answer's reserve included."""
        most = max(map(tokens_of, self.model.requests))
        return most + self.agent.context_budget.reserve_output


def prompts(request: ModelRequest) -> list[str]:
    """What users say in a request."""
    return [message.text for message in request.messages if isinstance(message, UserMessage)]
