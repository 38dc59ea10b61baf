"""OpenAI's Responses format: writing requests and parsing replies."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.schemas.message import (
    AssistantMessage,
    Message,
    NoteMessage,
    Opaque,
    Part,
    Text,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from midwatch.schemas.model import ModelRequest, Stop, Usage
from midwatch.schemas.tools import ToolSpec
from midwatch.workers.providers.responses.reply import parse_response
from midwatch.workers.providers.responses.request import is_reasoning_model, write_responses_request

TOOLS = (ToolSpec(name="f", description="does f", input_schema={"type": "object", "properties": {}}),)


def assistant(group: int, *parts: Part, provider: str = "openai") -> AssistantMessage:
    return AssistantMessage(group=group, parts=parts, provider=provider, model="m")


def tool_result(group: int, ordinal: int, content: str, *, is_error: bool = False) -> ToolMessage:
    return ToolMessage(group=group, ordinal=ordinal, call_id="x", tool="f", content=content, is_error=is_error)


def tool_call(raw_arguments: str = '{ "a" : 1 }', **extra: Any) -> ToolCall:
    return ToolCall(id="call_1", name="f", raw_arguments=raw_arguments, vendor_extra=extra or None)


def make_request(*messages: Message, **changes: Any) -> ModelRequest:
    fields: dict[str, Any] = {"model": "gpt-5", "system": "Be brief.", "messages": messages, **changes}
    return ModelRequest(**fields)


def test_responses_request_has_all_fields() -> None:
    """A request is stateless, asks for encrypted reasoning, and has its items in their original order."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"}
    request = make_request(
        UserMessage(group=1, text="go"),
        assistant(2, Opaque(provider="openai", raw=thought), Text(text="Looking."), tool_call('{ "a" : 1')),
        NoteMessage(group=2, text="stay on the goal"),
        tool_result(2, 0, "no", is_error=True),
        tools=TOOLS, cache_key="s-1", max_output_tokens=4,
    )  # fmt: skip
    assert write_responses_request(request, "openai") == {
        "model": "gpt-5",
        "store": False,
        "max_output_tokens": 16,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "s-1",
        "instructions": "Be brief.",
        "tools": [
            {
                "type": "function",
                "name": "f",
                "description": "does f",
                "parameters": {"type": "object", "properties": {}},
                "strict": False,
            }
        ],
        "input": [
            {"role": "user", "content": "go"},
            thought,
            {"role": "assistant", "content": "Looking."},
            {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "ERROR: no"},
            {"role": "developer", "content": "stay on the goal"},
        ],
    }


@pytest.mark.parametrize(
    ("model", "expected"),
    [("gpt-5-2025-08-07", True), ("gpt-6-astra", True), ("gpt-5.6-sol", True), ("o3", True), ("ft:gpt-5:x", True),
     ("gpt-4.1", False), ("gpt-4o-mini", False), ("gpt-5-chat-latest", False), ("llama-3", False)],
)  # fmt: skip
def test_only_reasoning_models_get_the_reasoning_field(model: str, expected: bool) -> None:
    """Encrypted reasoning is requested from reasoning models only, because other models answer 400."""
    assert is_reasoning_model(model) is expected
    assert ("include" in write_responses_request(make_request(model=model), "openai")) is expected


def test_long_cache_key_is_hashed() -> None:
    """A cache key that is too long for OpenAI is replaced by its hash."""
    bodies = [write_responses_request(make_request(cache_key="s" * 100), "openai") for _ in range(2)]
    assert len(bodies[0]["prompt_cache_key"]) == 64
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {}}, "required": []}, False),
    ],
)
def test_output_schema_is_strict_if_possible(schema: dict[str, Any], strict: bool) -> None:
    """A schema is sent as strict only if strict mode accepts it. OpenAI would answer 400 to any other."""
    body = write_responses_request(make_request(output_schema=schema), "openai")
    assert body["text"] == {"format": {"type": "json_schema", "name": "output", "schema": schema, "strict": strict}}


def reply(output: list[Any], status: str = "completed", **changes: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    }
    return {"status": status, "output": output, "usage": usage, "model": "gpt-5-2025-08-07", **changes}


def test_phase_and_reasoning_are_sent_back() -> None:
    """Newer models want their reasoning and the phase of each message back. Both are sent back unchanged."""
    output = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc", "status": None},
        {"type": "message", "phase": "commentary", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": ""},
    ]
    found = parse_response(reply(output), make_request(), "openai")
    assert (found.stop, found.usage) == (
        Stop.TOOLS, Usage(input_tokens=10, cached_tokens=4, cache_write_tokens=2, output_tokens=5)
    )  # fmt: skip
    assert found.parts[-1] == ToolCall(id="call_1", name="f", raw_arguments="")
    sent = write_responses_request(make_request(assistant(2, *found.parts), tool_result(2, 0, "r")), "openai")["input"]
    assert sent[:3] == [
        output[0],
        {"role": "assistant", "content": "I look.", "phase": "commentary"},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
    ]


@pytest.mark.parametrize(
    ("reason", "stop"),
    [("max_output_tokens", Stop.CONTEXT_FULL), ("content_filter", Stop.REFUSAL), ("steered", Stop.LENGTH)],
)
def test_incomplete_responses(reason: str, stop: Stop) -> None:
    """The reason of an incomplete response decides its Stop."""
    found = parse_response(reply([], "incomplete", incomplete_details={"reason": reason}), make_request(), "openai")
    assert (found.stop, found.raw_stop) == (stop, f"incomplete/{reason}")
