"""Writes a request in Anthropic's Messages format.

It sets up to four cache breakpoints: the system prompt, the last tool, and the last block of each of the two latest
user messages. The later user message writes the cache. The earlier one marks the place where the previous call wrote
it. So the cache is found even if many blocks were added since. Without a mark, Anthropic looks back only 20 blocks.
"""

from __future__ import annotations

from collections.abc import Iterable

from midwatch.orchestration.dialects.vendor_form import to_vendor_tool
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import Message, Text, ToolCall
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.anthropic.own_blocks import declare_past_tools, finish_assistant_blocks
from midwatch.workers.providers.earlier_turns import (
    BLANK,
    EARLIER_TURNS,
    make_portable_name,
    parse_arguments,
    render_input,
)
from midwatch.workers.providers.history.call_ids import ANTHROPIC_IDS
from midwatch.workers.providers.request_turns import RequestTurn, has_open_server_call, split_into_turns

CACHE_CONTROL = {"type": "ephemeral"}

CACHEABLE = frozenset({"text", "tool_use", "tool_result"})
"""Types of blocks that may have a cache breakpoint. Thinking blocks may not."""


def write_messages_request(request: ModelRequest, provider: str) -> JsonObject:
    """Write the body of `POST /v1/messages`, without temperature and prefill because newer models refuse both."""
    return {"model": request.model, "max_tokens": request.max_output_tokens, **_write_prompt(request, provider)}


def write_count_request(request: ModelRequest, provider: str) -> JsonObject:
    """Write the body of `POST /v1/messages/count_tokens`."""
    return {"model": request.model, **_write_prompt(request, provider)}


def _write_prompt(request: ModelRequest, provider: str) -> JsonObject:
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
    if request.output_schema is not None:
        prompt["output_config"] = {"format": {"type": "json_schema", "schema": request.output_schema}}
    prompt["messages"] = _write_messages(request.messages, provider)
    if not request.tools:
        prompt.update(declare_past_tools(prompt["messages"]))
    return prompt


def _write_messages(messages: Iterable[Message], provider: str) -> list[JsonObject]:
    body_messages: list[JsonObject] = []
    for turn in split_into_turns(messages, provider, ANTHROPIC_IDS):
        if assistant_blocks := _write_assistant(turn, provider):
            _append(body_messages, "assistant", assistant_blocks)
        if user_blocks := _write_user(turn):
            _append(body_messages, "user", user_blocks)
    if not body_messages or body_messages[0]["role"] != "user":
        body_messages.insert(0, {"role": "user", "content": [_write_text(EARLIER_TURNS)]})
    for message in [message for message in body_messages if message["role"] == "user"][-2:]:
        if message["content"][-1]["type"] in CACHEABLE:
            message["content"][-1]["cache_control"] = CACHE_CONTROL
    return body_messages


def _append(body_messages: list[JsonObject], role: str, blocks: list[JsonObject]) -> None:
    """Add a message. If the last message has the same role (after an empty turn), add the blocks to that message."""
    if body_messages and body_messages[-1]["role"] == role:
        body_messages[-1]["content"].extend(blocks)
    else:
        body_messages.append({"role": role, "content": blocks})


def _write_assistant(turn: RequestTurn, provider: str) -> list[JsonObject]:
    if turn.assistant is None:
        return []
    blocks: list[JsonObject] = []
    ids = iter(turn.call_ids)
    for part in turn.assistant.parts:
        if isinstance(part, ToolCall):
            name, arguments = make_portable_name(part.name), parse_arguments(part.raw_arguments) or {}
            blocks.append({"type": "tool_use", "id": next(ids), "name": name, "input": arguments})
        elif isinstance(part, Text):
            # Anthropic refuses empty and blank text, even if its own model wrote it.
            if part.text.strip():
                blocks.append(_write_text(part.text))
        elif part.provider == provider:
            blocks.append(dict(part.raw))
    is_paused = has_open_server_call(turn.assistant) and not turn.inputs and not turn.results
    return finish_assistant_blocks(blocks, is_paused=is_paused)


def _write_user(turn: RequestTurn) -> list[JsonObject]:
    """Write the tool results, which Anthropic wants first, and then the other messages in order."""
    blocks: list[JsonObject] = []
    for call_id, result in turn.results:
        block: JsonObject = {"type": "tool_result", "tool_use_id": call_id, "content": result.content}
        if result.is_error:
            # Anthropic refuses an error without text.
            block.update(content=result.content if result.content.strip() else "(no details)", is_error=True)
        blocks.append(block)
    return blocks + [_write_text(render_input(message) if message.text.strip() else BLANK) for message in turn.inputs]


def _write_text(text: str) -> JsonObject:
    return {"type": "text", "text": text}
