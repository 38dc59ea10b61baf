"""A request in Anthropic's Messages format.

Up to four cache breakpoints: system, last tool, and the last block of the two latest user turns. The later of those two
writes the cache; the earlier one is where the previous call wrote it, so it is found however many blocks came since
(the vendor looks back only 20).
"""

from __future__ import annotations

from collections.abc import Iterable

from midwatch.orchestration.dialects.vendor_form import to_vendor_tool
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import Message, Text, ToolCall
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.replay import EARLIER_TURNS, parsed_arguments, told, wire_name
from midwatch.workers.providers.turns import Turn, turns

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
        for tool in (to_vendor_tool(provider, tool) for tool in request.tools):
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
        wire.insert(0, {"role": "user", "content": [_text(EARLIER_TURNS)]})
    for message in [message for message in wire if message["role"] == "user"][-2:]:
        if message["content"][-1]["type"] in CACHEABLE:
            message["content"][-1]["cache_control"] = CACHE_CONTROL
    return wire


def _append(wire: list[JsonObject], role: str, blocks: list[JsonObject]) -> None:
    """Add a message, or its blocks to the one before: a turn that comes to nothing leaves two of one role adjacent."""
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
            name, arguments = wire_name(part.name), parsed_arguments(part.raw_arguments) or {}
            blocks.append({"type": "tool_use", "id": next(ids), "name": name, "input": arguments})
        elif isinstance(part, Text):
            # Empty and blank text is refused by the vendor, also where its own model wrote it.
            if part.text.strip():
                blocks.append(_text(part.text))
        elif part.provider == provider:
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
    return blocks + [_text(told(message) if message.text.strip() else "(blank)") for message in turn.told]


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}
