"""Read recorded conversations: system prompt, tool specs, groups of messages.

A file is JSON or JSON Lines, `.gz` or not: one record, a list of records, one record per line, or one message per line. A
record has `messages` (OpenAI Chat or Anthropic, with `system` as a key or as the first message), or `input` with
`instructions` (OpenAI Responses), or is the list of messages itself. It may have `tools`. Other keys are ignored.

Nothing is lost or invented. A call without an answer stays without a result. A result without a call keeps its place. A
repeated id is kept. Results are matched to calls by position; the id only selects one of a turn's calls, because real
models use one id for different calls.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, ToolMessage, UserMessage
from midwatch.schemas.tools import ToolSpec
from midwatch.workers.bench.context.recorded_formats import Event, InputText, ModelTurn, ToolResult, read

PROVIDER = "bench"
ORPHAN = -1
"""Ordinal of a result without a call in its record."""

RUNTIME_TOOLS = frozenset({"read_result", "recall"})

HOLDERS = ("messages", "input", "history")
"""Keys of a record that may hold its messages or items."""

NO_DESCRIPTION = "The record has no description of this tool."


@dataclass(frozen=True)
class Transcript:
    """One recorded conversation."""

    name: str
    """The record's id, or its place in the file."""
    system: str
    """The first message if it is a system or developer message, or the record's field. '' if there is neither."""
    tools: tuple[ToolSpec, ...]
    """The recorded tools. Empty if the record has none."""
    messages: tuple[Message, ...]
    """In recorded order. A system or developer message in the middle is a NoteMessage."""


def load(path: Path) -> list[Transcript]:
    """Load all records of a file.

    Raises:
        ConfigError: the file or a part of it can't be read; the message names the place.

    """
    rows = list(_rows(path))
    if rows and all(_is_message(row) for _, row in rows):
        return [read_transcript([row for _, row in rows], str(path))]
    if not rows:
        raise ConfigError(f"transcript {path}: expected at least one record, got an empty file")
    return [read_transcript(row, where) for where, row in rows]


def read_transcript(record: object, where: str = "transcript") -> Transcript:
    """Read one record. Raises ConfigError with the place of an unreadable part."""
    record = {"messages": record} if isinstance(record, list) else record
    if not isinstance(record, dict):
        raise ConfigError(f"{where}: expected a record (a JSON object or a list), got {type(record).__name__}")
    body = record["body"] if isinstance(record.get("body"), dict) else record
    elements = _elements(body, where)
    events = [event for n, element in enumerate(elements, 1) for event in read(element, f"{where}, message {n}")]
    system = _system(body, where)
    if not system and events and isinstance(events[0], InputText) and events[0].role == "system":
        system = events[0].text
        del events[0]
    tools = tuple(_tool(tool, f"{where}, tool {n}") for n, tool in enumerate(body.get("tools") or [], 1))
    name = next((str(record[key]) for key in ("id", "task_id", "name") if record.get(key) is not None), where)
    return Transcript(name, system, tools, tuple(_messages(events)))


def _elements(body: JsonObject, where: str) -> list[Any]:
    """Return the list of messages or items. For a Responses record with `output`, return input and output."""
    key = next((key for key in HOLDERS if body.get(key) is not None), "")
    held = body.get(key)
    held = [{"role": "user", "content": held}] if isinstance(held, str) else held
    if not isinstance(held, list):
        raise ConfigError(f"{where}: expected `messages` or `input` with a list, got the keys {sorted(body)[:12]}")
    answer = body.get("output") if key == "input" else None
    return held + answer if isinstance(answer, list) else held


def to_chat_messages(record: Transcript) -> list[JsonObject]:
    """Return the conversation as OpenAI Chat messages. Opaque blocks are left out, because this format has none."""
    chat: list[JsonObject] = [{"role": "system", "content": record.system}] if record.system else []
    for message in record.messages:
        if isinstance(message, AssistantMessage):
            turn: JsonObject = {"role": "assistant", "content": message.text or None}
            if message.tool_calls:
                turn["tool_calls"] = [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.name, "arguments": call.raw_arguments},
                    }
                    for call in message.tool_calls
                ]
            chat.append(turn)
        elif isinstance(message, ToolMessage):
            chat.append({"role": "tool", "tool_call_id": message.call_id, "content": message.content})
        else:
            chat.append({"role": "user" if isinstance(message, UserMessage) else "system", "content": message.text})
    return chat


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of each record, or of each message if each line is a message."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"transcript {path}: can't be read ({getattr(error, 'strerror', None) or error})") from error
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"transcript {path}, line {number}", _json(line, f"transcript {path}, line {number}")
        return
    if isinstance(whole, list) and whole and not _is_message(whole[0]):
        yield from ((f"transcript {path}, record {number}", row) for number, row in enumerate(whole, 1))
    else:
        yield f"transcript {path}", whole


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        problem = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise ConfigError(f"{where}: expected JSON, got {len(line)} characters of invalid JSON ({problem})") from None


def _is_message(row: object) -> bool:
    """Is it a message or an item, and not a record?"""
    holds = isinstance(row, dict) and any(isinstance(row.get(key), list) for key in HOLDERS)
    return isinstance(row, dict) and not holds and ("role" in row or "type" in row)


def _system(body: JsonObject, where: str) -> str:
    content = body.get("system") if body.get("system") is not None else body.get("instructions")
    if content is None:
        return ""
    event = read({"role": "system", "content": content}, f"{where}, system")[0]
    return event.text if isinstance(event, InputText) else ""


def _tool(tool: object, where: str) -> ToolSpec:
    """Read a tool in the format of any of the three vendors."""
    named = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(named, dict) or not isinstance(named.get("name"), str):
        came = f"the keys {sorted(tool)[:12]}" if isinstance(tool, dict) else type(tool).__name__
        raise ConfigError(f"{where}: expected a tool with a `name` (a function), got {came}; take it out")
    schema = next((named[key] for key in ("parameters", "input_schema", "inputSchema") if named.get(key)), None)
    return ToolSpec(
        name=portable(named["name"]),
        description=str(named.get("description") or NO_DESCRIPTION),
        input_schema=schema if isinstance(schema, dict) else {"type": "object"},
    )


def portable(name: str) -> str:
    """Return a tool's name that can be declared here. Other characters become `_`; the runtime's names get a prefix."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    free = plain not in RUNTIME_TOOLS and re.match(r"[A-Za-z_]", plain)
    return (plain if free else f"recorded_{plain}")[:64]


def _messages(events: Iterable[Event]) -> Iterator[Message]:
    """Number the groups. Each input message is one group; a model turn and its results are one group."""
    group = 0
    turns: list[_Turn] = []
    for event in _join_items(events):
        if isinstance(event, ToolResult) and (answer := _match_result(turns, event)):
            yield answer
            continue
        group += 1
        if isinstance(event, ToolResult):
            yield _tool_message(group, ORPHAN, event, event.tool or "unknown")
        elif isinstance(event, InputText):
            yield (UserMessage if event.role == "user" else NoteMessage)(group=group, text=event.text)
        else:
            message = AssistantMessage(group=group, parts=event.parts, provider=PROVIDER, model="recorded")
            turns.append(_Turn(message))
            yield message


class _Turn:
    """A model turn, and its calls without a result."""

    def __init__(self, message: AssistantMessage) -> None:
        self.message = message
        self.open = dict(enumerate(message.tool_calls))

    def place(self, result: ToolResult) -> int | None:
        """Find the first open call that matches the result: by id, or by the tool's name if the result has no id."""
        for ordinal, call in self.open.items():
            if call.id == result.call_id if result.call_id is not None else result.tool in (None, call.name):
                return ordinal
        return None


def _match_result(turns: Sequence[_Turn], result: ToolResult) -> ToolMessage | None:
    """Match the result to the latest turn with such an open call. Returns None if there is none."""
    for turn in reversed(turns):
        ordinal = turn.place(result)
        if ordinal is not None:
            call = turn.open.pop(ordinal)
            return _tool_message(turn.message.group, ordinal, result, call.name)
    return None


def _tool_message(group: int, ordinal: int, result: ToolResult, tool: str) -> ToolMessage:
    return ToolMessage(
        group=group, ordinal=ordinal, call_id=result.call_id or "", tool=tool, content=result.content,
        is_error=result.is_error,
    )  # fmt: skip


def _join_items(events: Iterable[Event]) -> Iterator[Event]:
    """Join the items of one answer in a Responses record into one turn."""
    held: ModelTurn | None = None
    for event in events:
        if held and isinstance(event, ModelTurn) and held.joins and event.joins:
            held = ModelTurn((*held.parts, *event.parts), joins=True)
            continue
        if held:
            yield held
            held = None
        if isinstance(event, ModelTurn):
            held = event
        else:
            yield event
    if held:
        yield held
