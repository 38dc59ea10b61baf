"""What was said at each step of a job: the trace knows when and how, the session knows what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from midwatch.schemas.job import Job
from midwatch.schemas.message import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.step import StepKind
from midwatch.schemas.trace import TraceRecord


@dataclass(frozen=True)
class Said:
    """By step id: `3` is the third model turn, `3.0` its first tool call."""

    texts: dict[str, str] = field(default_factory=dict)
    calls: dict[str, ToolCall] = field(default_factory=dict)
    results: dict[str, ToolMessage] = field(default_factory=dict)


def said(job: Job, records: Sequence[TraceRecord], messages: Sequence[Message]) -> Said:
    """Join the job's trace to its part of the session. Empty where they don't fit together (any more).

    A session may hold many jobs, and messages don't say which one they belong to. A job's part begins with its user
    message and has one assistant message for each turn that was committed, so it is recognised by the tools called,
    turn by turn. Of two that look the same, the one that ends with the job's output is meant; else the later one.
    """
    turns = [r for r in records if r.kind is StepKind.MODEL and r.outcome in ("continue", "complete")]
    fitting = [part for part in _parts(messages) if _fits(turns, part)]
    if not turns or not fitting:
        return Said()
    by_output = [part for part in fitting if job.output is not None and _answers(part)[-1].text == job.output]
    return _by_step((by_output or fitting)[-1])


def _parts(messages: Sequence[Message]) -> list[list[Message]]:
    """The session, cut before each user message."""
    parts: list[list[Message]] = [[]]
    for message in messages:
        if isinstance(message, UserMessage):
            parts.append([])
        parts[-1].append(message)
    return parts


def _answers(part: Sequence[Message]) -> list[AssistantMessage]:
    return [message for message in part if isinstance(message, AssistantMessage)]


def _fits(turns: Sequence[TraceRecord], part: Sequence[Message]) -> bool:
    """One of the two may be a turn ahead: they were read one after the other, and the job may go on meanwhile."""
    answers = _answers(part)
    called = [tuple(call.name for call in answer.tool_calls) for answer in answers]
    same = all(turn.tools == names for turn, names in zip(turns, called, strict=False))
    return same and bool(answers) and abs(len(answers) - len(turns)) <= 1


def _by_step(part: Sequence[Message]) -> Said:
    found = Said()
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
