"""A transcript as a session can play it: jobs with their model turns, and tools that answer as recorded.

A job begins where somebody spoke to the model. Three things a record may hold and a session can't have are bridged, and
are marked as what they are: a conversation that the model opened, a user who spoke while calls were under way (a job ends
with an answer, so one is put in), a turn without a word.
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

OPENING = "(The record begins with the model's own words.)"
BRIDGE = "(The record goes on here without an answer of the model.)"
WORDLESS = "(The record has an empty turn here.)"
NO_RESULT = "The record has no result of this call."
NO_SYSTEM = "(The record has no system prompt.)"

WHOLE_RESULT_TOKENS = 50_000_000
"""Results reach the session as they were recorded, however long: what to do with them is what is measured."""


@dataclass
class PlayedTurn:
    """One recorded model turn and what its calls came to, by ordinal."""

    parts: tuple[Part, ...]
    results: dict[int, ToolMessage] = field(default_factory=dict)
    stop: Stop = Stop.END

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """What the turn asked for."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


@dataclass
class PlayedJob:
    """What was said to the model, and its turns about it."""

    input: str
    turns: list[PlayedTurn] = field(default_factory=list)

    def turn(self, number: int) -> PlayedTurn:
        """The turn of that number, from 1; past the end of the record, the answer that ends the job."""
        return self.turns[number - 1] if number <= len(self.turns) else PlayedTurn((Text(text=BRIDGE),))


def jobs_of(transcript: Transcript) -> list[PlayedJob]:
    """The jobs in order. What was said last and has no answer in the record is not played."""
    jobs: list[PlayedJob] = []
    said: list[str] = []
    turns: dict[int, PlayedTurn] = {}
    for message in transcript.messages:
        if isinstance(message, AssistantMessage):
            if said or not jobs:
                jobs.append(PlayedJob("\n\n".join(said).strip() or OPENING))
                said = []
            turns[message.group] = _turn(message)
            jobs[-1].turns.append(turns[message.group])
        elif not isinstance(message, ToolMessage):
            said.append(message.text)
        elif message.ordinal != ORPHAN:
            turns[message.group].results[message.ordinal] = message
    for job in jobs:
        for turn in job.turns:
            last = turn is job.turns[-1]
            turn.stop = Stop.TOOLS if turn.calls else Stop.END if last else Stop.PAUSE
    return jobs


def _turn(message: AssistantMessage) -> PlayedTurn:
    """Tools are called by the names they could be declared under."""
    parts = tuple(
        part.model_copy(update={"name": portable(part.name)}) if isinstance(part, ToolCall) else part
        for part in message.parts
    )
    wordless = not message.text.strip() and not message.tool_calls
    return PlayedTurn((*parts, Text(text=WORDLESS)) if wordless else parts)


class RecordedSchema(JSONSchemaValidator):
    """Offers the recorded schema and judges nothing: a recorded call was judged when it was made."""

    def __init__(self, schema: JsonObject) -> None:
        self.schema = schema
        self.has_required = False

    def problems(self, arguments: object) -> tuple[Problem, ...]:
        """None."""
        return ()


def tools_of(transcript: Transcript, result: Callable[[ToolContext], ToolMessage | None]) -> list[Tool]:
    """The recorded tools, or, of a record without any, one for each name that was called.

    Args:
        transcript: The record.
        result: What the record has for the call that runs.

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
