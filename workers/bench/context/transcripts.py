"""Recorded conversations, read into our own shapes: system prompt, tool specs, groups of messages.

A file is JSON or JSON Lines, `.gz` or not: one record, a list of records, one record a line, or one message a line. A
record holds `messages` (OpenAI Chat or Anthropic, with `system` beside them or first in them), `input` with
`instructions` (OpenAI Responses), or is the list of messages itself; `tools` may be there, other keys don't matter.

Nothing is lost or invented: a call that nobody answered stays without a result, a result that answers no call stays
where it stood, a repeated id stays as it was written. Results are tied to calls by place, the id only says which of
a turn's calls: real models use one id for different calls.
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
from midwatch.workers.bench.context.recorded_formats import Event, Heard, Result, Said, read

PROVIDER = "bench"
ORPHAN = -1
"""Ordinal of a result that answers no call of its record."""

RUNTIME_TOOLS = frozenset({"read_result", "recall"})

HOLDERS = ("messages", "input", "history")
"""Where a record has its messages or items."""

NO_DESCRIPTION = "The record has no description of this tool."


@dataclass(frozen=True)
class Transcript:
    """One recorded conversation."""

    name: str
    """Where it stands: the row's own id, or its place in the file."""
    system: str
    """The first message when that is a system or developer message, or the record's own field. '' when there is none."""
    tools: tuple[ToolSpec, ...]
    """As recorded; empty when the record has none."""
    messages: tuple[Message, ...]
    """In recorded order. A system or developer message in the middle is a NoteMessage."""


def load(path: Path) -> list[Transcript]:
    """All records of a file.

    Raises:
        ConfigError: the file or something in it can't be read; says where.

    """
    rows = list(_rows(path))
    if rows and all(_is_message(row) for _, row in rows):
        return [transcript([row for _, row in rows], str(path))]
    if not rows:
        raise ConfigError(f"transcript {path}: expected at least one record, got an empty file")
    return [transcript(row, where) for where, row in rows]


def transcript(record: object, where: str = "transcript") -> Transcript:
    """One record; raises ConfigError with the place of what can't be read."""
    record = {"messages": record} if isinstance(record, list) else record
    if not isinstance(record, dict):
        raise ConfigError(f"{where}: expected a record (a JSON object or a list), got {type(record).__name__}")
    body = record["body"] if isinstance(record.get("body"), dict) else record
    elements = _elements(body, where)
    events = [event for n, element in enumerate(elements, 1) for event in read(element, f"{where}, message {n}")]
    system = _system(body, where)
    if not system and events and isinstance(events[0], Heard) and events[0].role == "system":
        system = events[0].text
        del events[0]
    tools = tuple(_tool(tool, f"{where}, tool {n}") for n, tool in enumerate(body.get("tools") or [], 1))
    name = next((str(record[key]) for key in ("id", "task_id", "name") if record.get(key) is not None), where)
    return Transcript(name, system, tools, tuple(_messages(events)))


def _elements(body: JsonObject, where: str) -> list[Any]:
    """The list of messages or items; of a Responses record with the answer beside the input, both."""
    key = next((key for key in HOLDERS if body.get(key) is not None), "")
    held = body.get(key)
    held = [{"role": "user", "content": held}] if isinstance(held, str) else held
    if not isinstance(held, list):
        raise ConfigError(f"{where}: expected `messages` or `input` with a list, got the keys {sorted(body)[:12]}")
    answer = body.get("output") if key == "input" else None
    return held + answer if isinstance(answer, list) else held


def chat_form(record: Transcript) -> list[JsonObject]:
    """The conversation as OpenAI Chat messages: what was read, written back. Opaque blocks have no place in that form."""
    wire: list[JsonObject] = [{"role": "system", "content": record.system}] if record.system else []
    for message in record.messages:
        if isinstance(message, AssistantMessage):
            said: JsonObject = {"role": "assistant", "content": message.text or None}
            if message.tool_calls:
                said["tool_calls"] = [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.name, "arguments": call.raw_arguments},
                    }
                    for call in message.tool_calls
                ]
            wire.append(said)
        elif isinstance(message, ToolMessage):
            wire.append({"role": "tool", "tool_call_id": message.call_id, "content": message.content})
        else:
            wire.append({"role": "user" if isinstance(message, UserMessage) else "system", "content": message.text})
    return wire


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of each record, or of each message where a line holds one."""
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
        raise ConfigError(f"{where}: expected JSON, got {len(line)} characters that are none ({problem})") from None


def _is_message(row: object) -> bool:
    """A message or item, not a record of them."""
    holds = isinstance(row, dict) and any(isinstance(row.get(key), list) for key in HOLDERS)
    return isinstance(row, dict) and not holds and ("role" in row or "type" in row)


def _system(body: JsonObject, where: str) -> str:
    said = body.get("system") if body.get("system") is not None else body.get("instructions")
    if said is None:
        return ""
    heard = read({"role": "system", "content": said}, f"{where}, system")[0]
    return heard.text if isinstance(heard, Heard) else ""


def _tool(tool: object, where: str) -> ToolSpec:
    """A tool as any of the three vendors is told of it."""
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
    """A tool's name as it can be declared here: other characters become `_`, the runtime's own names are not taken."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    free = plain not in RUNTIME_TOOLS and re.match(r"[A-Za-z_]", plain)
    return (plain if free else f"recorded_{plain}")[:64]


def _messages(events: Iterable[Event]) -> Iterator[Message]:
    """Number the groups: whatever is heard is one of its own, a model turn one with all its results."""
    group = 0
    turns: list[_Turn] = []
    for event in _joined(events):
        if isinstance(event, Result) and (answer := _answered(turns, event)):
            yield answer
            continue
        group += 1
        if isinstance(event, Result):
            yield _tool_message(group, ORPHAN, event, event.tool or "unknown")
        elif isinstance(event, Heard):
            yield (UserMessage if event.role == "user" else NoteMessage)(group=group, text=event.text)
        else:
            message = AssistantMessage(group=group, parts=event.parts, provider=PROVIDER, model="recorded")
            turns.append(_Turn(message))
            yield message


class _Turn:
    """A model turn, and which of its calls are still without a result."""

    def __init__(self, message: AssistantMessage) -> None:
        self.message = message
        self.open = dict(enumerate(message.tool_calls))

    def place(self, result: Result) -> int | None:
        """The first open call that the result can be of: by its id, or by the tool where it names no id."""
        for ordinal, call in self.open.items():
            if call.id == result.call_id if result.call_id is not None else result.tool in (None, call.name):
                return ordinal
        return None


def _answered(turns: Sequence[_Turn], result: Result) -> ToolMessage | None:
    """The result as that of the latest turn which has such a call open; None when there is none."""
    for turn in reversed(turns):
        ordinal = turn.place(result)
        if ordinal is not None:
            call = turn.open.pop(ordinal)
            return _tool_message(turn.message.group, ordinal, result, call.name)
    return None


def _tool_message(group: int, ordinal: int, result: Result, tool: str) -> ToolMessage:
    return ToolMessage(
        group=group, ordinal=ordinal, call_id=result.call_id or "", tool=tool, content=result.content,
        is_error=result.is_error,
    )  # fmt: skip


def _joined(events: Iterable[Event]) -> Iterator[Event]:
    """Items of a Responses record that came in one answer, as one turn."""
    held: Said | None = None
    for event in events:
        if held and isinstance(event, Said) and held.joins and event.joins:
            held = Said((*held.parts, *event.parts), joins=True)
            continue
        if held:
            yield held
            held = None
        if isinstance(event, Said):
            held = event
        else:
            yield event
    if held:
        yield held
