"""A request in OpenAI's Responses format: stateless, because the session lives in Redis."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from midwatch.orchestration.dialects.vendor_form import to_vendor_output, to_vendor_tool
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import Message, NoteMessage, Text, ToolCall
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.replay import error_marked, wire_name
from midwatch.workers.providers.responses.strict import is_openai_strict
from midwatch.workers.providers.turns import Turn, turns

MIN_OUTPUT_TOKENS = 16
"""The vendor refuses a smaller limit."""

MAX_CACHE_KEY_CHARS = 64

PHASE = "message_phase"
"""Our own opaque marker before a text: newer models want the `phase` of each of their messages back."""

_REASONING = re.compile(r"(?:ft:)?(?:o\d|codex|gpt-(?:[5-9]|\d\d))")
_NOT_REASONING = re.compile(r"-chat(?:-|$)")


def reasons(model: str) -> bool:
    """Whether the model sends reasoning items. Asking one that does not for their encrypted content is a 400."""
    return _REASONING.match(model) is not None and _NOT_REASONING.search(model) is None


def responses_request(request: ModelRequest, provider: str) -> JsonObject:
    """The body of `POST /responses`."""
    body: JsonObject = {"model": request.model, "store": False}
    body["max_output_tokens"] = max(request.max_output_tokens, MIN_OUTPUT_TOKENS)
    if reasons(request.model):
        body["include"] = ["reasoning.encrypted_content"]
    if request.cache_key is not None:
        body["prompt_cache_key"] = cache_key(request.cache_key)
    return {**body, **_prompt(request, provider)}


def count_request(request: ModelRequest, provider: str) -> JsonObject:
    """The body of `POST /responses/input_tokens`."""
    return {"model": request.model, **_prompt(request, provider)}


def cache_key(text: str) -> str:
    """A cache key of the length the vendor takes."""
    return text if len(text) <= MAX_CACHE_KEY_CHARS else hashlib.sha256(text.encode()).hexdigest()


def _prompt(request: ModelRequest, provider: str) -> JsonObject:
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
    if request.force_tool is not None:
        prompt["tool_choice"] = {"type": "function", "name": request.force_tool}
    if request.output_schema is not None:
        schema = to_vendor_output(provider, request.output_schema)
        strict = is_openai_strict(schema)
        prompt["text"] = {"format": {"type": "json_schema", "name": "output", "schema": schema, "strict": strict}}
    prompt["input"] = _items(request.messages, provider)
    return prompt


def _items(messages: Iterable[Message], provider: str) -> list[JsonObject]:
    items: list[JsonObject] = []
    for turn in turns(messages, provider):
        items.extend(_said(turn, provider))
        items.extend(
            {"type": "function_call_output", "call_id": wire_id, "output": error_marked(result)}
            for wire_id, result in turn.results
        )
        items.extend(
            {"role": "developer" if isinstance(message, NoteMessage) else "user", "content": message.text}
            for message in turn.told
        )
    return items


def _said(turn: Turn, provider: str) -> list[JsonObject]:
    """The model's own items in the order it wrote them: a reasoning item belongs to the one after it."""
    if turn.assistant is None:
        return []
    items: list[JsonObject] = []
    ids = iter(turn.ids)
    phase: JsonObject = {}
    for part in turn.assistant.parts:
        if isinstance(part, Text):
            items.append({"role": "assistant", "content": part.text, **phase})
            phase = {}
        elif isinstance(part, ToolCall):
            name = wire_name(part.name)
            items.append({"type": "function_call", "call_id": next(ids), "name": name, "arguments": part.raw_arguments})
        elif part.provider == provider:
            if part.raw.get("type") == PHASE:
                phase = {"phase": part.raw.get("phase")}
            else:
                items.append(part.raw)
    return items
