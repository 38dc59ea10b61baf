"""Read one recorded message in any of three formats.

The formats are OpenAI Chat messages, OpenAI Responses items, and Anthropic messages with content blocks. The format is
detected for each element, because harnesses mix them. A part without text (an image, a file) can't be counted or replayed.
It is refused with its place and not skipped. Text, ids and arguments are not changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import Opaque, Part, Text, ToolCall

TEXT_TYPES = frozenset({"text", "input_text", "output_text"})
OPAQUE_OF = {
    "thinking": "anthropic",
    "redacted_thinking": "anthropic",
    "compaction": "anthropic",
    "server_tool_use": "anthropic",
    "web_search_tool_result": "anthropic",
    "code_execution_tool_result": "anthropic",
    "reasoning": "openai",
    "refusal": "openai",
}
"""Type of a vendor-specific block in a model turn -> its vendor."""


@dataclass(frozen=True)
class InputText:
    """Text for the model, from the user or from the harness (`system`)."""

    role: str
    text: str


@dataclass(frozen=True)
class ModelTurn:
    """The output of the model. `joins`: an item of a Responses record, which forms one turn with adjacent items."""

    parts: tuple[Part, ...]
    joins: bool = False


@dataclass(frozen=True)
class ToolResult:
    """The result of a call. It names its call by id, or by the tool's name in the old function format."""

    call_id: str | None
    tool: str | None
    content: str
    is_error: bool


Event = InputText | ModelTurn | ToolResult


def read(element: object, where: str) -> list[Event]:
    """Return the events of one element of a record, in order. Raises ConfigError with the place."""
    if not isinstance(element, dict):
        raise _unreadable(where, "a message (a JSON object)", element)
    kind = element.get("type")
    if kind in ("function_call", "custom_tool_call"):
        return [ModelTurn((_call(element, where),), joins=True)]
    if kind in ("function_call_output", "custom_tool_call_output"):
        return [ToolResult(element.get("call_id"), None, _text(element.get("output"), where), False)]
    if "role" not in element and kind in OPAQUE_OF:
        return [ModelTurn((Opaque(provider=OPAQUE_OF[kind], raw=element),), joins=True)]
    match element.get("role"):
        case "system" | "developer":
            return [InputText("system", _text(element.get("content"), where))]
        case "user":
            return _user(element.get("content"), where)
        case "assistant":
            return [ModelTurn(_parts(element, where), joins=kind == "message")]
        case "tool" | "function":
            return [_result(element, where)]
    expected = "a role (system, developer, user, assistant, tool) or a Responses item"
    raise _unreadable(where, expected, element.get("role") or kind)


def _user(content: object, where: str) -> list[Event]:
    """Read a user message. In Anthropic's format it may hold tool results and text; their order is kept."""
    if not isinstance(content, list):
        return [InputText("user", _text(content, where))]
    events: list[Event] = []
    for number, block in enumerate(content, 1):
        place = f"{where}, block {number}"
        if isinstance(block, dict) and block.get("type") == "tool_result":
            text = _text(block.get("content"), place)
            events.append(ToolResult(block.get("tool_use_id"), None, text, block.get("is_error") is True))
            continue
        text = _text([block], place)
        last = events[-1] if events else None
        if isinstance(last, InputText):
            events[-1] = InputText("user", last.text + text)
        else:
            events.append(InputText("user", text))
    return events or [InputText("user", "")]


def _parts(message: JsonObject, where: str) -> tuple[Part, ...]:
    content = message.get("content")
    parts: list[Part] = []
    if isinstance(content, list):
        parts += (_part(block, f"{where}, block {number}") for number, block in enumerate(content, 1))
    elif text := _text(content, where):
        parts.append(Text(text=text))
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise _unreadable(where, "tool_calls that are a list", calls)
    parts += (_call(call, f"{where}, tool call {number}") for number, call in enumerate(calls, 1))
    if message.get("function_call"):
        parts.append(_call(message["function_call"], f"{where}, function_call"))
    return tuple(parts)


def _part(block: object, where: str) -> Part:
    kind = block.get("type") if isinstance(block, dict) else None
    if isinstance(block, dict) and kind == "tool_use":
        return _call(block, where)
    if isinstance(block, dict) and kind in OPAQUE_OF:
        return Opaque(provider=OPAQUE_OF[kind], raw=block)
    return Text(text=_text([block], where))


def _call(call: object, where: str) -> ToolCall:
    """Read a call. Some records have no `function` around name and arguments, or have decoded arguments."""
    if not isinstance(call, dict):
        raise _unreadable(where, "a tool call (a JSON object)", call)
    function = call.get("function")
    named = function if isinstance(function, dict) else call
    name = named.get("name")
    if not isinstance(name, str):
        raise _unreadable(where, "a tool call with the tool's `name`", name)
    arguments = next((named[key] for key in ("arguments", "input") if named.get(key) is not None), "")
    raw = _whole(arguments if isinstance(arguments, str) else dump(arguments), where)
    call_id = call.get("call_id") or call.get("id") or ""
    return ToolCall(id=_whole(str(call_id), where), name=_whole(name, where), raw_arguments=raw)


def _result(message: JsonObject, where: str) -> ToolResult:
    """Read a tool's message. Its call is named in one of three fields."""
    several = message.get("tool_call_ids")
    call_id = message.get("tool_call_id") or message.get("id") or (several[0] if several else None)
    failed = message.get("is_error") is True or message.get("error") is True
    call_id = None if call_id is None else _whole(str(call_id), where)
    return ToolResult(call_id, message.get("name"), _text(message.get("content"), where), failed)


def _text(content: object, where: str) -> str:
    """Return the text of a content field: text, nothing, or a list of text parts. An object is written as JSON."""
    if content is None:
        return ""
    if isinstance(content, str):
        return _whole(content, where)
    if isinstance(content, dict):
        return _whole(dump(content), where)
    if not isinstance(content, list):
        raise _unreadable(where, "content that is text or a list of text parts", content)
    return _whole("".join(_texts(content, where)), where)


def _texts(content: Iterable[object], where: str) -> Iterable[str]:
    for part in content:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict) and part.get("type") in TEXT_TYPES and isinstance(part.get("text"), str):
            yield part["text"]
        else:
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise _unreadable(where, "text, because only text can be replayed; remove the part", kind)


def _whole(text: str, where: str) -> str:
    """Check that the text has no lone surrogate, which can't be sent to a provider."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        lone = f"a lone surrogate at position {error.start}"
        raise ConfigError(f"{where}: expected text that is Unicode, got {lone}; correct the record") from None
    return text


def dump(value: object) -> str:
    """Write JSON as models write it."""
    return json.dumps(value, ensure_ascii=False)


def _unreadable(where: str, expected: str, came: object) -> ConfigError:
    """Return an error that names the found role or type, and never the content."""
    named = isinstance(came, str) and re.fullmatch(r"[\w./-]{1,40}", came)
    shown = repr(came) if named else "nothing" if came is None else f"a value of type {type(came).__name__}"
    return ConfigError(f"{where}: expected {expected}, got {shown}")
