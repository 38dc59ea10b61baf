"""Split a transcript into jobs with their model turns, and make tools that return the recorded results.

A job begins with a message to the model. A record may hold three things that a session can't have. They are bridged with
marked texts: a conversation that begins with the model, a user message while calls are running (a job must end with an
answer, so one is added), and an empty turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from midwatch.orchestration.errors import ToolError
from midwatch.orchestration.tools.context import ToolContext
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.toolbox import tool
from midwatch.orchestration.validation.problems import Problem
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import AssistantMessage, Part, Text, ToolCall, ToolMessage
from midwatch.schemas.model import Stop
from midwatch.schemas.tools import ToolSpec
from midwatch.workers.bench.context.transcripts import NO_DESCRIPTION, ORPHAN, Transcript, portable

OPENING = "(The record begins with a turn of the model.)"
BRIDGE = "(The record goes on here without an answer of the model.)"
WORDLESS = "(The record has an empty turn here.)"
NO_RESULT = "The record has no result of this call."
NO_SYSTEM = "(The record has no system prompt.)"

WHOLE_RESULT_TOKENS = 50_000_000
"""Limit for recorded results. It is so high that results are not cut, because the session's handling is measured."""


@dataclass
class RecordedTurn:
    """One recorded model turn, and the results of its calls by ordinal."""

    parts: tuple[Part, ...]
    results: dict[int, ToolMessage] = field(default_factory=dict)
    stop: Stop = Stop.END

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the turn."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


@dataclass
class RecordedJob:
    """The input of a job, and its model turns."""

    input: str
    turns: list[RecordedTurn] = field(default_factory=list)

    def turn(self, number: int) -> RecordedTurn:
        """Return the turn with this number, from 1. After the last recorded turn, return an answer that ends the job."""
        return self.turns[number - 1] if number <= len(self.turns) else RecordedTurn((Text(text=BRIDGE),))


def split_jobs(transcript: Transcript) -> list[RecordedJob]:
    """Split a transcript into jobs. A last input without an answer in the record is left out."""
    jobs: list[RecordedJob] = []
    inputs: list[str] = []
    turns: dict[int, RecordedTurn] = {}
    for message in transcript.messages:
        if isinstance(message, AssistantMessage):
            if inputs or not jobs:
                jobs.append(RecordedJob("\n\n".join(inputs).strip() or OPENING))
                inputs = []
            turns[message.group] = _turn(message)
            jobs[-1].turns.append(turns[message.group])
        elif not isinstance(message, ToolMessage):
            inputs.append(message.text)
        elif message.ordinal != ORPHAN:
            turns[message.group].results[message.ordinal] = message
    for job in jobs:
        for turn in job.turns:
            last = turn is job.turns[-1]
            turn.stop = Stop.TOOLS if turn.calls else Stop.END if last else Stop.PAUSE
    return jobs


def _turn(message: AssistantMessage) -> RecordedTurn:
    """Make a turn. Tools get names that can be declared here."""
    parts = tuple(
        part.model_copy(update={"name": portable(part.name)}) if isinstance(part, ToolCall) else part
        for part in message.parts
    )
    wordless = not message.text.strip() and not message.tool_calls
    return RecordedTurn((*parts, Text(text=WORDLESS)) if wordless else parts)


class RecordedSchema(JSONSchemaValidator):
    """Offers the recorded schema and accepts all arguments, because a recorded call was already validated."""

    def __init__(self, schema: JsonObject) -> None:
        self.schema = schema
        self.has_required = False

    def problems(self, arguments: object) -> tuple[Problem, ...]:
        """Return no problems."""
        return ()


def make_tools(transcript: Transcript, result: Callable[[ToolContext], ToolMessage | None]) -> list[Tool]:
    """Make the recorded tools. For a record without tools, make one for each called name.

    Args:
        transcript: The record.
        result: Returns the recorded result of the running call.

    """
    specs = transcript.tools or tuple(
        ToolSpec(name=name, description=NO_DESCRIPTION, input_schema={"type": "object"})
        for name in dict.fromkeys(
            portable(call.name)
            for message in transcript.messages
            if isinstance(message, AssistantMessage)
            for call in message.tool_calls
        )
    )

    def answer(call_replayed: ToolContext, **_: object) -> str:
        recorded = result(call_replayed)
        if recorded is None:
            raise ToolError(NO_RESULT)
        if recorded.is_error:
            raise ToolError(recorded.content)
        return recorded.content

    return [
        tool(
            spec.name,
            spec.description,
            RecordedSchema(spec.input_schema),
            inline=True,
            idempotent=True,
            max_result_tokens=WHOLE_RESULT_TOKENS,
        )(answer)
        for spec in {spec.name: spec for spec in specs}.values()
    ]
