"""Writes a request in the Chat Completions format, using only what every server of this format accepts.

There is one system message, and it comes first, because some chat templates accept no other. Notes are sent as marked
user text. Adjacent user messages are merged. No field that only OpenAI knows is sent, because Gemini's endpoint answers
400 to an unknown field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from midwatch.orchestration.dialects.vendor_form import to_vendor_output, to_vendor_tool
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import AssistantMessage, Message, Opaque, ToolCall
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.chat_completions.gemini_schema import convert_to_gemini
from midwatch.workers.providers.earlier_turns import (
    EARLIER_TURNS,
    make_portable_name,
    render_arguments,
    render_input,
    render_result,
)
from midwatch.workers.providers.history.call_ids import CHAT_IDS
from midwatch.workers.providers.request_turns import RequestTurn, split_into_turns
from midwatch.workers.providers.responses.strict_schema import is_openai_strict

NO_SIGNATURE: JsonObject = {"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}}
"""The signature that Google documents for a call that no Gemini model made. Without one, Gemini 3 and later refuse a
history that another provider began."""

EMPTY = "(empty)"
"""Sent instead of a blank tool result, because some servers refuse a message without content."""

NO_ANSWER = "(no answer)"
"""A model message between a tool result and a user message. Mistral's servers refuse a user message right after a result."""

NO_REASONING: JsonObject = {"reasoning_content": " "}
"""Reasoning of a model message that has none. Kimi refuses an empty text."""

_GEMINI_VERSION = re.compile(r"gemini-(\d+)")


def write_chat_request(
    request: ModelRequest, provider: str, *, gemini: bool, fill_reasoning: bool = False
) -> JsonObject:
    """Write the body of `POST /chat/completions`. It uses `max_tokens`, the limit that every server knows.

    With `fill_reasoning`, a model message without reasoning gets a blank one.
    """
    body: JsonObject = {"model": request.model, "max_tokens": request.max_output_tokens}
    if request.tools:
        body["tools"] = [
            {"type": "function", "function": function} for function in _write_functions(request, provider, gemini)
        ]
    if request.output_schema is not None:
        schema = to_vendor_output(provider, request.output_schema)
        schema = convert_to_gemini(schema) if gemini else schema
        strict = {} if gemini else {"strict": is_openai_strict(schema)}
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": schema, **strict},
        }
    signed = gemini and needs_signatures(request.model)
    messages = _write_messages(request.messages, provider, NO_SIGNATURE if signed else {})
    if fill_reasoning:
        messages = [{**NO_REASONING, **one} if one["role"] == "assistant" else one for one in messages]
    system = [{"role": "system", "content": request.system}] if request.system.strip() else []
    body["messages"] = [*system, *messages]
    return body


def needs_signatures(model: str) -> bool:
    """Return True if the model refuses function calls without a thought signature (Gemini 3 and later)."""
    version = _GEMINI_VERSION.search(model)
    return version is not None and int(version[1]) >= 3


def _write_functions(request: ModelRequest, provider: str, gemini: bool) -> list[JsonObject]:
    functions: list[JsonObject] = []
    for tool in (to_vendor_tool(provider, tool) for tool in request.tools):
        schema = convert_to_gemini(tool.input_schema) if gemini else tool.input_schema
        functions.append({"name": tool.name, "description": tool.description})
        if not gemini or schema.get("properties"):  # Gemini refuses an object without properties
            functions[-1]["parameters"] = schema
        if tool.strict and not gemini:
            functions[-1]["strict"] = True
    return functions


def _write_messages(messages: Iterable[Message], provider: str, unsigned: JsonObject) -> list[JsonObject]:
    body_messages: list[JsonObject] = []
    for turn in split_into_turns(messages, provider, CHAT_IDS):
        if turn.assistant is not None and (
            assistant_message := _write_assistant(turn, turn.assistant, provider, unsigned)
        ):
            body_messages.append(assistant_message)
        for call_id, result in turn.results:
            content = render_result(result)
            body_messages.append(
                {"role": "tool", "tool_call_id": call_id, "content": content if content.strip() else EMPTY}
            )
        for text in map(render_input, turn.inputs):
            _append_input(body_messages, text)
    if not body_messages or body_messages[0]["role"] != "user":
        body_messages.insert(0, {"role": "user", "content": EARLIER_TURNS})
    return body_messages


def _append_input(body_messages: list[JsonObject], text: str) -> None:
    """Append a user message, or add the text to the user message before."""
    before = body_messages[-1]["role"] if body_messages else ""
    if before == "user":
        body_messages[-1]["content"] += f"\n\n{text}"
        return
    if before == "tool":
        body_messages.append({"role": "assistant", "content": NO_ANSWER})
    body_messages.append({"role": "user", "content": text})


def _write_assistant(
    turn: RequestTurn, message: AssistantMessage, provider: str, unsigned: JsonObject
) -> JsonObject | None:
    """Write the model's turn as one message, or return None if it would be empty."""
    calls: list[JsonObject] = []
    vendor_fields: JsonObject = {}
    for part in message.parts:
        if isinstance(part, ToolCall):
            function = {"name": make_portable_name(part.name), "arguments": render_arguments(part.raw_arguments)}
            own = part.vendor_extra if message.provider == provider else None
            # Only the first of parallel calls has a signature.
            extra = own or ({} if calls else unsigned)
            calls.append({"id": turn.call_ids[len(calls)], "type": "function", "function": function, **extra})
        elif isinstance(part, Opaque) and part.provider == provider:
            vendor_fields.update(part.raw)
    # Claude's models, also behind a gateway, refuse blank text and blanks at the end of the last text.
    text = message.text.rstrip()
    if not calls and not text:
        return None
    assistant_message: JsonObject = {"role": "assistant", "content": text or None, **vendor_fields}
    if calls:
        assistant_message["tool_calls"] = calls
    return assistant_message
