"""A request in Anthropic's Messages format.

Up to four cache breakpoints: system, last tool, and the last block of the two latest user turns. The later of those two
writes the cache; the earlier one is where the previous call wrote it, so it is found however many blocks came since
(the vendor looks back only 20).
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from schemas.contract import JsonObject
from schemas.message import Message, NoteMessage, Opaque, Text, ToolCall, UserMessage
from schemas.model import ModelRequest
from workers.providers.turns import Turn, turns, wire_name

CACHE_CONTROL = {"type": "ephemeral"}

CACHEABLE = frozenset({"text", "tool_use", "tool_result"})
"""Blocks that may carry a breakpoint; thinking blocks may not."""


def messages_request(request: ModelRequest, provider: str) -> JsonObject:
    """The body of `POST /v1/messages`. No temperature and no prefill: newer models refuse both."""
    return {"model": request.model, "max_tokens": request.max_output_tokens, **_prompt(request, provider)}


def count_request(request: ModelRequest, provider: str) -> JsonObject:
    """The body of `POST /v1/messages/count_tokens`."""
    return {"model": request.model, **_prompt(request, provider)}


def _prompt(request: ModelRequest, provider: str) -> JsonObject:
    prompt: JsonObject = {}
    if request.system.strip():
        prompt["system"] = [{"type": "text", "text": request.system, "cache_control": CACHE_CONTROL}]
    if request.tools:
        tools: list[JsonObject] = []
        for tool in request.tools:
            tools.append({"name": tool.name, "description": tool.description, "input_schema": tool.input_schema})
            if tool.strict:
                tools[-1]["strict"] = True
        tools[-1]["cache_control"] = CACHE_CONTROL
        prompt["tools"] = tools
    if request.force_tool is not None:
        prompt["tool_choice"] = {"type": "tool", "name": request.force_tool}
    if request.output_schema is not None:
        prompt["output_config"] = {"format": {"type": "json_schema", "schema": request.output_schema}}
    prompt["messages"] = _messages(request.messages, provider)
    return prompt


def _messages(messages: Iterable[Message], provider: str) -> list[JsonObject]:
    wire: list[JsonObject] = []
    for turn in turns(messages, provider):
        if said := _assistant_blocks(turn, provider):
            _append(wire, "assistant", said)
        if heard := _user_blocks(turn):
            _append(wire, "user", heard)
    if not wire or wire[0]["role"] != "user":
        # The format begins with the user; a window that was trimmed to a model turn has no user turn before it.
        wire.insert(0, {"role": "user", "content": [_text("<reminder>Earlier turns are not shown.</reminder>")]})
    for message in [message for message in wire if message["role"] == "user"][-2:]:
        if message["content"][-1]["type"] in CACHEABLE:
            message["content"][-1]["cache_control"] = CACHE_CONTROL
    return wire


def _append(wire: list[JsonObject], role: str, blocks: list[JsonObject]) -> None:
    """Add a message, or its blocks to the one before it: a turn of which nothing is left leaves two of one role adjacent."""
    if wire and wire[-1]["role"] == role:
        wire[-1]["content"].extend(blocks)
    else:
        wire.append({"role": role, "content": blocks})


def _assistant_blocks(turn: Turn, provider: str) -> list[JsonObject]:
    if turn.assistant is None:
        return []
    blocks: list[JsonObject] = []
    ids = iter(turn.ids)
    for part in turn.assistant.parts:
        if isinstance(part, ToolCall):
            name, arguments = wire_name(part.name), arguments_object(part.raw_arguments)
            blocks.append({"type": "tool_use", "id": next(ids), "name": name, "input": arguments})
        elif isinstance(part, Text):
            # Empty and blank text is refused by the vendor, also where its own model wrote it.
            if part.text.strip():
                blocks.append(_text(part.text))
        elif isinstance(part, Opaque) and part.provider == provider:
            blocks.append(dict(part.raw))
    return blocks


def _user_blocks(turn: Turn) -> list[JsonObject]:
    """Results first, as the vendor demands, then what was said, in order."""
    blocks: list[JsonObject] = []
    for wire_id, result in turn.results:
        block: JsonObject = {"type": "tool_result", "tool_use_id": wire_id, "content": result.content}
        if result.is_error:
            # An error without a word is refused.
            block.update(content=result.content if result.content.strip() else "(no details)", is_error=True)
        blocks.append(block)
    return blocks + [_told(message) for message in turn.told]


def _told(message: UserMessage | NoteMessage) -> JsonObject:
    text = message.text if message.text.strip() else "(blank)"
    return _text(f"<reminder>{text}</reminder>" if isinstance(message, NoteMessage) else text)


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def arguments_object(raw_arguments: str) -> JsonObject:
    """The arguments as an object; {} when they are none. The result that follows has told the model what was wrong."""
    try:
        value = json.loads(raw_arguments, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refuse(name: str) -> None:
    raise ValueError(name)
