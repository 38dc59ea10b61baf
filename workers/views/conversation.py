"""The texts, tool calls and tool results of each step of a job.

The trace holds the times and outcomes of the steps. The session holds the messages. This module joins the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from midwatch.schemas.job import Job
from midwatch.schemas.message import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.step import StepKind
from midwatch.schemas.trace import TraceRecord


@dataclass(frozen=True)
class JobConversation:
    """The messages of a job by step id: `3` is the third model turn, `3.0` its first tool call."""

    texts: dict[str, str] = field(default_factory=dict)
    calls: dict[str, ToolCall] = field(default_factory=dict)
    results: dict[str, ToolMessage] = field(default_factory=dict)
    input: str | None = None
    """The job's input."""


def find_conversation(job: Job, records: Sequence[TraceRecord], messages: Sequence[Message]) -> JobConversation:
    """Find the job's part of the session. Returns an empty conversation if no part matches the trace.

    A session may hold many jobs, and a message does not name its job. A job's part begins with its user message and has
    one assistant message for each committed turn. So the part is recognised by the tools that each turn called. If two
    parts match, the one that ends with the job's output is taken, else the later one.
    """
    turns = [r for r in records if r.kind is StepKind.MODEL and r.outcome in ("continue", "complete")]
    matching = [part for part in _split(messages) if _matches(turns, part)]
    if not turns or not matching:
        return JobConversation()
    by_output = [part for part in matching if job.output is not None and _answers(part)[-1].text == job.output]
    return _by_step((by_output or matching)[-1])


def _split(messages: Sequence[Message]) -> list[list[Message]]:
    """Split the session before each user message."""
    parts: list[list[Message]] = [[]]
    for message in messages:
        if isinstance(message, UserMessage):
            parts.append([])
        parts[-1].append(message)
    return parts


def _answers(part: Sequence[Message]) -> list[AssistantMessage]:
    return [message for message in part if isinstance(message, AssistantMessage)]


def _matches(turns: Sequence[TraceRecord], part: Sequence[Message]) -> bool:
    """Did the same turns call the same tools?

    The job may commit a turn between the two reads, so trace and session may differ by one turn.
    """
    answers = _answers(part)
    tool_names = [tuple(call.name for call in answer.tool_calls) for answer in answers]
    same = all(turn.tools == names for turn, names in zip(turns, tool_names, strict=False))
    return same and bool(answers) and abs(len(answers) - len(turns)) <= 1


def _by_step(part: Sequence[Message]) -> JobConversation:
    found = JobConversation(input=next((one.text for one in part if isinstance(one, UserMessage)), None))
    turn_of_group: dict[int, int] = {}
    for turn, answer in enumerate(_answers(part), 1):
        turn_of_group[answer.group] = turn
        found.texts[str(turn)] = answer.text
        for ordinal, call in enumerate(answer.tool_calls):
            found.calls[f"{turn}.{ordinal}"] = call
    for message in part:
        if isinstance(message, ToolMessage) and message.group in turn_of_group:
            found.results[f"{turn_of_group[message.group]}.{message.ordinal}"] = message
    return found
