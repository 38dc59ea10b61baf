"""The Chat Completions format, with Gemini's differences: writing requests and parsing replies."""

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
from midwatch.workers.providers.chat_completions.reply import parse_completion
from midwatch.workers.providers.chat_completions.request import write_chat_request
from midwatch.workers.providers.read_json import BadReply
from midwatch.workers.providers.token_usage import UNREPORTED

TOOLS = (ToolSpec(name="f", description="does f", input_schema={"type": "object"}),)


def assistant(group: int, *parts: Part, provider: str = "openai") -> AssistantMessage:
    return AssistantMessage(group=group, parts=parts, provider=provider, model="m")


def tool_result(group: int, ordinal: int, content: str, *, is_error: bool = False) -> ToolMessage:
    return ToolMessage(group=group, ordinal=ordinal, call_id="x", tool="f", content=content, is_error=is_error)


def tool_call(raw_arguments: str = '{ "a" : 1 }', **extra: Any) -> ToolCall:
    return ToolCall(id="call_1", name="f", raw_arguments=raw_arguments, vendor_extra=extra or None)


def make_request(*messages: Message, **changes: Any) -> ModelRequest:
    fields: dict[str, Any] = {"model": "gpt-5", "system": "Be brief.", "messages": messages, **changes}
    return ModelRequest(**fields)


def test_chat_request_has_all_fields() -> None:
    """A request has one system message, marked errors, merged user messages, and no field of a single vendor.

    Mistral refuses a user message right after a tool result, so a model message comes between them.
    """
    request = make_request(
        UserMessage(group=1, text="go"),
        assistant(2, tool_call(), provider="openai-compatible"),
        tool_result(2, 0, "no", is_error=True),
        NoteMessage(group=2, text="stay"),
        UserMessage(group=3, text="on"),
        tools=TOOLS, cache_key="s-1", max_output_tokens=100,
    )  # fmt: skip
    function = {"name": "f", "arguments": '{ "a" : 1 }'}
    assert write_chat_request(request, "openai-compatible", gemini=False) == {
        "model": "gpt-5",
        "max_tokens": 100,
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "does f", "parameters": {"type": "object"}}}
        ],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "go"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "ERROR: no"},
            {"role": "assistant", "content": "(no answer)"},
            {"role": "user", "content": "<reminder>stay</reminder>\n\non"},
        ],
    }


def completion(message: dict[str, Any], finish: str = "stop", **changes: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": finish, "message": message}], "model": "m", **changes}


def test_thought_signatures_are_sent_back_to_gemini_only() -> None:
    """Data that Gemini attaches to a call is kept unchanged. It is sent back to Gemini, and to no other provider."""
    signature = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    function = {"name": "f", "arguments": "{}"}
    call = {"id": "c", "type": "function", "function": function, **signature}
    message = {"content": None, "tool_calls": [call]}
    found = parse_completion(completion(message, "tool_calls"), make_request(), "gemini")
    assert found.parts == (ToolCall(id="c", name="f", raw_arguments="{}", vendor_extra=signature),)
    turn = (assistant(2, *found.parts, provider="gemini"), tool_result(2, 0, "r"))
    gemini = make_request(UserMessage(group=1, text="x"), *turn, model="gemini-3-pro")
    assert write_chat_request(gemini, "gemini", gemini=True)["messages"][2]["tool_calls"] == [call]
    elsewhere = write_chat_request(gemini, "openai-compatible", gemini=False)["messages"][2]["tool_calls"][0]
    assert "extra_content" not in elsewhere


def test_foreign_calls_are_marked_for_gemini() -> None:
    """Gemini 3 refuses calls without a signature. The first call of another provider's turn gets a substitute."""
    turn = (
        assistant(2, tool_call(), tool_call(), provider="anthropic"),
        tool_result(2, 0, "r"),
        tool_result(2, 1, "s"),
    )
    for model, signed in (("gemini-3-pro", [True, False]), ("gemini-2.5-pro", [False, False])):
        body = write_chat_request(
            make_request(UserMessage(group=1, text="x"), *turn, model=model), "gemini", gemini=True
        )
        assert ["extra_content" in call for call in body["messages"][2]["tool_calls"]] == signed


def test_reasoning_text_is_sent_back() -> None:
    """Servers that send reasoning in a separate field want it back in that field."""
    message = {"content": "Hi", "reasoning_content": "hm"}
    found = parse_completion(completion(message), make_request(), "openai-compatible")
    assert found.parts == (Opaque(provider="openai-compatible", raw={"reasoning_content": "hm"}), Text(text="Hi"))
    sent = write_chat_request(
        make_request(UserMessage(group=1, text="x"), assistant(2, *found.parts, provider="openai-compatible")),
        "openai-compatible",
        gemini=False,
    )
    assert sent["messages"][2] == {"role": "assistant", "content": "Hi", "reasoning_content": "hm"}


@pytest.mark.parametrize(
    ("arguments", "raw", "replayed"),
    [("", "", "{}"), (None, "", "{}"), ({"a": 1}, '{"a":1}', '{"a":1}'), ('{"a"', '{"a"', "{}"), ("{ }", "{ }", "{ }")],
)
def test_unusual_arguments_are_sent_back_as_objects(arguments: object, raw: str, replayed: str) -> None:
    """Arguments are stored unchanged. If they are no JSON object, they are sent back as an empty one."""
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    found = parse_completion(completion({"content": None, "tool_calls": [call]}), make_request(), "openai-compatible")
    (part,) = found.parts
    assert isinstance(part, ToolCall)
    assert part.raw_arguments == raw
    # A forced call ends with 'stop'. With some servers, every call does.
    assert found.stop is Stop.TOOLS
    request = make_request(
        UserMessage(group=1, text="x"), assistant(2, part, provider="openai-compatible"), tool_result(2, 0, "r")
    )
    body = write_chat_request(request, "openai-compatible", gemini=False)
    assert body["messages"][2]["tool_calls"][0]["function"]["arguments"] == replayed


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 100, "output_tokens": 20}, Usage(input_tokens=100, output_tokens=20)),
        (
            {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": None},
            Usage(input_tokens=100, output_tokens=20),
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 90},
            Usage(input_tokens=100, output_tokens=20),
        ),
        ({"prompt_tokens": 100.0, "completion_tokens": 20.0}, Usage(input_tokens=100, output_tokens=20)),
        (
            {"prompt_tokens": 120, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 80_000}},
            Usage(reported=False, impossible="input_tokens"),
        ),
        ({"prompt_tokens": None, "completion_tokens": None}, UNREPORTED),
        ({"prompt_tokens": 0, "completion_tokens": 20}, UNREPORTED),
        (
            {"prompt_tokens": "100", "completion_tokens": "20"},
            Usage(reported=False, impossible="input_tokens"),
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 20.5},
            Usage(reported=False, impossible="output_tokens"),
        ),
        ({"tokens": 120}, UNREPORTED),
        (None, UNREPORTED),
    ],
)
def test_usage_of_compatible_servers(usage: object, expected: Usage):
    """Servers use other names, floats, `null`, or a prompt without its cached part. What is not a count is not reported."""
    found = parse_completion(completion({"content": "x"}, usage=usage), make_request(), "openai-compatible")
    assert found.usage == expected


def test_thinking_tokens_in_the_total_count_as_output() -> None:
    """Gemini bills thinking tokens as output, but counts them only in `total_tokens`."""
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 180}
    found = parse_completion(completion({"content": "x"}, usage=usage), make_request(), "gemini")
    assert found.usage == Usage(input_tokens=100, output_tokens=80, reasoning_tokens=60)


@pytest.mark.parametrize("finish", ["error", "function_call_filter: MALFORMED_FUNCTION_CALL"])
def test_model_output_that_its_server_rejects(finish: str) -> None:
    """If the server can't parse its own model's output, that is a provider error, which is retried."""
    with pytest.raises(BadReply, match="rejected its model's output"):
        parse_completion(completion({"content": None}, finish), make_request(), "gemini")


def test_text_pieces_are_joined() -> None:
    """Content may be a list of typed pieces. Only the pieces of type text are used."""
    pieces = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert parse_completion(completion({"content": pieces}), make_request(), "x").parts == (Text(text="ab"),)


def test_output_schema_is_strict_if_possible() -> None:
    """An output schema is sent as strict if it fits strict mode. Gemini gets a converted schema without `strict`."""
    schema = {"type": "object", "properties": {"a": {"const": "x"}}, "required": ["a"], "additionalProperties": False}
    plain = write_chat_request(make_request(output_schema=schema), "openai-compatible", gemini=False)["response_format"]
    assert plain == {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": True}}
    gemini = write_chat_request(make_request(output_schema=schema), "gemini", gemini=True)["response_format"][
        "json_schema"
    ]
    projected = {"type": "object", "properties": {"a": {"enum": ["x"], "type": "string"}}, "required": ["a"]}
    assert gemini == {"name": "output", "schema": projected}


def test_window_without_a_user_message_gets_one() -> None:
    """Chat templates want a user message first, and Mistral wants one last. A window without them gets marked lines."""
    body = write_chat_request(make_request(assistant(2, Text(text="hi"))), "openai-compatible", gemini=False)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
