"""OpenAI's Responses format: what is written, and how a reply's particulars are read."""

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
from midwatch.workers.providers.read_json import ErrorReply
from midwatch.workers.providers.responses.reply import parse_response
from midwatch.workers.providers.responses.request import is_reasoning_model, write_responses_request

TOOLS = (ToolSpec(name="f", description="does f", input_schema={"type": "object", "properties": {}}),)


def said(group: int, *parts: Part, provider: str = "openai") -> AssistantMessage:
    return AssistantMessage(group=group, parts=parts, provider=provider, model="m")


def done(group: int, ordinal: int, content: str, *, is_error: bool = False) -> ToolMessage:
    return ToolMessage(group=group, ordinal=ordinal, call_id="x", tool="f", content=content, is_error=is_error)


def calling(raw_arguments: str = '{ "a" : 1 }', **extra: Any) -> ToolCall:
    return ToolCall(id="call_1", name="f", raw_arguments=raw_arguments, vendor_extra=extra or None)


def asked(*messages: Message, **changes: Any) -> ModelRequest:
    fields: dict[str, Any] = {"model": "gpt-5", "system": "Be brief.", "messages": messages, **changes}
    return ModelRequest(**fields)


def test_responses_request() -> None:
    """Stateless, with encrypted reasoning, flat tools, the cache key, and items in the order they happened."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"}
    request = asked(
        UserMessage(group=1, text="go"),
        said(2, Opaque(provider="openai", raw=thought), Text(text="Looking."), calling('{ "a" : 1')),
        NoteMessage(group=2, text="stay on the goal"),
        done(2, 0, "no", is_error=True),
        tools=TOOLS, cache_key="s-1", max_output_tokens=4, force_tool="f",
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
        "tool_choice": {"type": "function", "name": "f"},
        "input": [
            {"role": "user", "content": "go"},
            thought,
            {"role": "assistant", "content": "Looking."},
            {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{ "a" : 1'},
            {"type": "function_call_output", "call_id": "call_1", "output": "ERROR: no"},
            {"role": "developer", "content": "stay on the goal"},
        ],
    }


@pytest.mark.parametrize(
    ("model", "expected"),
    [("gpt-5-2025-08-07", True), ("gpt-6-astra", True), ("gpt-5.6-sol", True), ("o3", True), ("ft:gpt-5:x", True),
     ("gpt-4.1", False), ("gpt-4o-mini", False), ("gpt-5-chat-latest", False), ("llama-3", False)],
)  # fmt: skip
def test_encrypted_reasoning_is_asked_of_reasoning_models_only(model: str, expected: bool) -> None:
    """Other models answer 400 when they are asked for it."""
    assert is_reasoning_model(model) is expected
    assert ("include" in write_responses_request(asked(model=model), "openai")) is expected


def test_long_cache_keys() -> None:
    """A cache key longer than the vendor takes is digested, the same each time."""
    bodies = [write_responses_request(asked(cache_key="s" * 100), "openai") for _ in range(2)]
    assert len(bodies[0]["prompt_cache_key"]) == 64
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {}}, "required": []}, False),
    ],
)
def test_output_schema(schema: dict[str, Any], strict: bool) -> None:
    """A schema is sent as strict exactly when it is in the form strict mode demands: any other is a 400."""
    body = write_responses_request(asked(output_schema=schema), "openai")
    assert body["text"] == {"format": {"type": "json_schema", "name": "output", "schema": schema, "strict": strict}}


def reply(output: list[Any], status: str = "completed", **changes: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    }
    return {"status": status, "output": output, "usage": usage, "model": "gpt-5-2025-08-07", **changes}


def test_phase_and_reasoning_go_round() -> None:
    """What newer models want back, their reasoning and the phase of each message, comes back as it was."""
    output = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc", "status": None},
        {"type": "message", "phase": "commentary", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": ""},
    ]
    found = parse_response(reply(output), asked(), "openai")
    assert (found.stop, found.usage) == (
        Stop.TOOLS, Usage(input_tokens=10, cached_tokens=4, cache_write_tokens=2, output_tokens=5)
    )  # fmt: skip
    assert found.parts[-1] == ToolCall(id="call_1", name="f", raw_arguments="")
    sent = write_responses_request(asked(said(2, *found.parts), done(2, 0, "r")), "openai")["input"]
    assert sent[:3] == [
        output[0],
        {"role": "assistant", "content": "I look.", "phase": "commentary"},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": ""},
    ]


def test_failed_responses_are_errors() -> None:
    """A response that failed after a good status is classified by its error; without one it is an error, too."""
    with pytest.raises(ErrorReply) as caught:
        parse_response(reply([], "failed", error={"code": "rate_limit_exceeded", "message": "x"}), asked(), "openai")
    assert caught.value.body["error"]["code"] == "rate_limit_exceeded"  # type: ignore[index]
    for status in ("failed", "cancelled"):
        with pytest.raises(ErrorReply):
            parse_response(reply([], status), asked(), "openai")


@pytest.mark.parametrize(
    ("reason", "stop"),
    [("max_output_tokens", Stop.CONTEXT_FULL), ("content_filter", Stop.REFUSAL), ("steered", Stop.UNKNOWN)],
)
def test_incomplete_responses(reason: str, stop: Stop) -> None:
    """Why a response is incomplete decides its stop."""
    found = parse_response(reply([], "incomplete", incomplete_details={"reason": reason}), asked(), "openai")
    assert (found.stop, found.raw_stop) == (stop, f"incomplete/{reason}")
