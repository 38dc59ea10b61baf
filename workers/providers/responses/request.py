"""Writes a request in OpenAI's Responses format. OpenAI stores nothing, because the session is kept in Redis."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from midwatch.orchestration.dialects.answer import answer_form
from midwatch.orchestration.dialects.vendor_form import to_vendor_output, to_vendor_tool
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import Message, NoteMessage, Opaque, ToolCall
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.earlier_turns import make_portable_name, render_arguments, render_result
from midwatch.workers.providers.request_turns import RequestTurn, split_into_turns

MIN_OUTPUT_TOKENS = 16
"""OpenAI refuses a smaller limit."""

MAX_CACHE_KEY_CHARS = 64

PHASE = "message_phase"
"""Type of a marker that we store before a text. It keeps the `phase`, which newer models want back with each message."""

SELF_CONTAINED = frozenset(
    {
        "code_interpreter_call", "compaction", "file_search_call", "image_generation_call", "mcp_call", "mcp_list_tools",
        "web_search_call",
    }
)  # fmt: skip
"""Types of output items that need no output from us (SDK: `ResponseOutputItem`)."""

_REASONING = re.compile(r"(?:ft:)?(?:o\d|codex|gpt-(?:[5-9]|\d\d))")
_NOT_REASONING = re.compile(r"-chat(?:-|$)")


def is_reasoning_model(model: str) -> bool:
    """Return True if the model sends reasoning items. Other models answer 400 if their encrypted content is requested."""
    return _REASONING.match(model) is not None and _NOT_REASONING.search(model) is None


def write_responses_request(request: ModelRequest, provider: str) -> JsonObject:
    """Write the body of `POST /responses`."""
    body: JsonObject = {"model": request.model, "store": False}
    body["max_output_tokens"] = max(request.max_output_tokens, MIN_OUTPUT_TOKENS)
    if is_reasoning_model(request.model):
        body["include"] = ["reasoning.encrypted_content"]
    if request.cache_key is not None:
        body["prompt_cache_key"] = shorten_cache_key(request.cache_key)
    return {**body, **_write_prompt(request, provider)}


def write_count_request(request: ModelRequest, provider: str) -> JsonObject:
    """Write the body of `POST /responses/input_tokens`."""
    return {"model": request.model, **_write_prompt(request, provider)}


def shorten_cache_key(text: str) -> str:
    """Replace a cache key by its hash if it is longer than OpenAI accepts."""
    return text if len(text) <= MAX_CACHE_KEY_CHARS else hashlib.sha256(text.encode()).hexdigest()


def _write_prompt(request: ModelRequest, provider: str) -> JsonObject:
    prompt: JsonObject = {}
    if request.system.strip():
        prompt["instructions"] = request.system
    if request.tools:
        prompt["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.input_schema,
                "strict": tool.strict,
            }
            for tool in (to_vendor_tool(provider, tool) for tool in request.tools)
        ]
    if request.output_schema is not None:
        answer = answer_form(provider, to_vendor_output(provider, request.output_schema))
        form = {"type": "json_schema", "name": "output", "schema": answer.schema, "strict": answer.strict}
        prompt["text"] = {"format": form}
    prompt["input"] = _write_items(request.messages, provider)
    return prompt


def _write_items(messages: Iterable[Message], provider: str) -> list[JsonObject]:
    items: list[JsonObject] = []
    for turn in split_into_turns(messages, provider):
        items.extend(_write_assistant(turn, provider))
        items.extend(
            {"type": "function_call_output", "call_id": call_id, "output": render_result(result)}
            for call_id, result in turn.results
        )
        items.extend(
            {"role": "developer" if isinstance(message, NoteMessage) else "user", "content": message.text}
            for message in turn.inputs
        )
    return items


def _write_assistant(turn: RequestTurn, provider: str) -> list[JsonObject]:
    """Write the model's items in their original order. An opaque item is sent only together with the item after it."""
    if turn.assistant is None:
        return []
    items: list[JsonObject] = []
    waiting: list[JsonObject] = []
    ids = iter(turn.call_ids)
    phase: JsonObject = {}
    for part in turn.assistant.parts:
        if isinstance(part, Opaque):
            if part.provider == provider and part.raw.get("type") == PHASE:
                phase = {"phase": part.raw.get("phase")}
            elif part.provider == provider:
                waiting.append(part.raw)
            continue
        if isinstance(part, ToolCall):
            name, arguments = make_portable_name(part.name), render_arguments(part.raw_arguments)
            item: JsonObject = {"type": "function_call", "call_id": next(ids), "name": name, "arguments": arguments}
        elif part.text:
            item, phase = {"role": "assistant", "content": part.text, **phase}, {}
        else:
            continue
        # An item is refused without the reasoning before it, and a reasoning item without the item after it.
        items += [*waiting, item] if all(map(is_complete_item, waiting)) else [item]
        waiting = []
    return items


def is_complete_item(item: JsonObject) -> bool:
    """May this item of an earlier response be sent to a server that stores nothing?

    A reasoning item needs its encrypted or its plain content. With its id alone, OpenAI looks it up and answers 404. A call of
    a vendor's tool that we never answer would be refused, too.
    """
    kind = item.get("type")
    if kind == "reasoning":
        return bool(item.get("encrypted_content") or item.get("content"))
    return kind in SELF_CONTAINED
