"""A request in the Chat Completions format, for every server that speaks it: only what all of them take.

Servers behind it differ in what they refuse. So there is one system message and it comes first (some chat templates
allow no other), notes go to the model as marked user text, adjacent user messages are one, and no field is sent that
is OpenAI's own (Gemini's endpoint answers 400 to any it does not know).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from midwatch.orchestration.dialects.vendor_form import to_vendor_output, to_vendor_tool
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import AssistantMessage, Message, Opaque, ToolCall
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.chat_completions.gemini_schema import for_gemini
from midwatch.workers.providers.replay import EARLIER_TURNS, error_marked, parsed_arguments, told, wire_name
from midwatch.workers.providers.responses.strict import is_openai_strict
from midwatch.workers.providers.turns import Turn, turns

NO_SIGNATURE: JsonObject = {"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}}
"""The vendor's documented stand-in for a call that one of its own models did not make: without any, Gemini 3 and later
refuse a history that another provider began."""

_GEMINI_VERSION = re.compile(r"gemini-(\d+)")


def chat_request(request: ModelRequest, provider: str, *, gemini: bool) -> JsonObject:
    """The body of `POST /chat/completions`. `max_tokens` is the limit that every such server knows."""
    body: JsonObject = {"model": request.model, "max_tokens": request.max_output_tokens}
    if request.tools:
        body["tools"] = [
            {"type": "function", "function": function} for function in _functions(request, provider, gemini)
        ]
    if request.force_tool is not None:
        body["tool_choice"] = {"type": "function", "function": {"name": request.force_tool}}
    if request.output_schema is not None:
        schema = to_vendor_output(provider, request.output_schema)
        schema = for_gemini(schema) if gemini else schema
        strict = {} if gemini else {"strict": is_openai_strict(schema)}
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": schema, **strict},
        }
    signed = gemini and wants_signatures(request.model)
    messages = _messages(request.messages, provider, NO_SIGNATURE if signed else {})
    system = [{"role": "system", "content": request.system}] if request.system.strip() else []
    body["messages"] = [*system, *messages]
    return body


def wants_signatures(model: str) -> bool:
    """Whether the model refuses function calls without a thought signature: Gemini 3 and later."""
    version = _GEMINI_VERSION.search(model)
    return version is not None and int(version[1]) >= 3


def _functions(request: ModelRequest, provider: str, gemini: bool) -> list[JsonObject]:
    functions: list[JsonObject] = []
    for tool in (to_vendor_tool(provider, tool) for tool in request.tools):
        schema = for_gemini(tool.input_schema) if gemini else tool.input_schema
        functions.append({"name": tool.name, "description": tool.description, "parameters": schema})
        if tool.strict and not gemini:
            functions[-1]["strict"] = True
    return functions


def _messages(messages: Iterable[Message], provider: str, unsigned: JsonObject) -> list[JsonObject]:
    wire: list[JsonObject] = []
    for turn in turns(messages, provider):
        if turn.assistant is not None and (said := _said(turn, turn.assistant, provider, unsigned)):
            wire.append(said)
        for wire_id, result in turn.results:
            wire.append({"role": "tool", "tool_call_id": wire_id, "content": error_marked(result)})
        for text in map(told, turn.told):
            if wire and wire[-1]["role"] == "user":
                wire[-1]["content"] += f"\n\n{text}"
            else:
                wire.append({"role": "user", "content": text})
    if not wire or wire[0]["role"] != "user":
        wire.insert(0, {"role": "user", "content": EARLIER_TURNS})
    return wire


def _said(turn: Turn, message: AssistantMessage, provider: str, unsigned: JsonObject) -> JsonObject | None:
    """The model's turn as one message, or None when nothing of it is left."""
    calls: list[JsonObject] = []
    kept: JsonObject = {}
    for part in message.parts:
        if isinstance(part, ToolCall):
            # Most servers parse the arguments of the history and fail on text that is no object, call after call.
            arguments = "{}" if parsed_arguments(part.raw_arguments) is None else part.raw_arguments
            function = {"name": wire_name(part.name), "arguments": arguments}
            # Of parallel calls only the first is signed.
            extra = (part.vendor_extra or {}) if message.provider == provider else {} if calls else unsigned
            calls.append({"id": turn.ids[len(calls)], "type": "function", "function": function, **extra})
        elif isinstance(part, Opaque) and part.provider == provider:
            kept.update(part.raw)
    if not calls and not message.text:
        return None
    said: JsonObject = {"role": "assistant", "content": message.text or None, **kept}
    if calls:
        said["tool_calls"] = calls
    return said
