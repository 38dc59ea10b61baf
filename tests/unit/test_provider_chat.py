"""The Chat Completions format, Gemini's particulars included: what is written, and how a reply is read."""

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

TOOLS = (ToolSpec(name="f", description="does f", input_schema={"type": "object"}),)


def said(group: int, *parts: Part, provider: str = "openai") -> AssistantMessage:
    return AssistantMessage(group=group, parts=parts, provider=provider, model="m")


def done(group: int, ordinal: int, content: str, *, is_error: bool = False) -> ToolMessage:
    return ToolMessage(group=group, ordinal=ordinal, call_id="x", tool="f", content=content, is_error=is_error)


def calling(raw_arguments: str = '{ "a" : 1 }', **extra: Any) -> ToolCall:
    return ToolCall(id="call_1", name="f", raw_arguments=raw_arguments, vendor_extra=extra or None)


def asked(*messages: Message, **changes: Any) -> ModelRequest:
    fields: dict[str, Any] = {"model": "gpt-5", "system": "Be brief.", "messages": messages, **changes}
    return ModelRequest(**fields)


def test_chat_request() -> None:
    """One system message, nested tools, errors marked, notes and user text as one message, no vendor's own field."""
    request = asked(
        UserMessage(group=1, text="go"),
        said(2, calling(), provider="openai-compatible"),
        done(2, 0, "no", is_error=True),
        NoteMessage(group=2, text="stay"),
        UserMessage(group=3, text="on"),
        tools=TOOLS, cache_key="s-1", max_output_tokens=100, force_tool="f",
    )  # fmt: skip
    function = {"name": "f", "arguments": '{ "a" : 1 }'}
    assert write_chat_request(request, "openai-compatible", gemini=False) == {
        "model": "gpt-5",
        "max_tokens": 100,
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "does f", "parameters": {"type": "object"}}}
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "go"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "ERROR: no"},
            {"role": "user", "content": "<reminder>stay</reminder>\n\non"},
        ],
    }


def completion(message: dict[str, Any], finish: str = "stop", **changes: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": finish, "message": message}], "model": "m", **changes}


def test_thought_signatures_go_round() -> None:
    """What Gemini attaches to a call is carried verbatim and sent back to Gemini, and to nobody else."""
    signature = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    function = {"name": "f", "arguments": "{}"}
    call = {"id": "c", "type": "function", "function": function, **signature}
    message = {"content": None, "tool_calls": [call]}
    found = parse_completion(completion(message, "tool_calls"), asked(), "gemini")
    assert found.parts == (ToolCall(id="c", name="f", raw_arguments="{}", vendor_extra=signature),)
    turn = (said(2, *found.parts, provider="gemini"), done(2, 0, "r"))
    gemini = asked(UserMessage(group=1, text="x"), *turn, model="gemini-3-pro")
    assert write_chat_request(gemini, "gemini", gemini=True)["messages"][2]["tool_calls"] == [call]
    elsewhere = write_chat_request(gemini, "openai-compatible", gemini=False)["messages"][2]["tool_calls"][0]
    assert "extra_content" not in elsewhere


def test_foreign_calls_are_marked_for_gemini() -> None:
    """Gemini 3 refuses unsigned calls: the first of a turn that another provider made carries the stand-in."""
    turn = (said(2, calling(), calling(), provider="anthropic"), done(2, 0, "r"), done(2, 1, "s"))
    for model, signed in (("gemini-3-pro", [True, False]), ("gemini-2.5-pro", [False, False])):
        body = write_chat_request(asked(UserMessage(group=1, text="x"), *turn, model=model), "gemini", gemini=True)
        assert ["extra_content" in call for call in body["messages"][2]["tool_calls"]] == signed


def test_reasoning_text_is_given_back() -> None:
    """Servers that send reasoning beside the message want it back in their own field."""
    message = {"content": "Hi", "reasoning_content": "hm"}
    found = parse_completion(completion(message), asked(), "openai-compatible")
    assert found.parts == (Opaque(provider="openai-compatible", raw={"reasoning_content": "hm"}), Text(text="Hi"))
    sent = write_chat_request(
        asked(UserMessage(group=1, text="x"), said(2, *found.parts, provider="openai-compatible")),
        "openai-compatible",
        gemini=False,
    )
    assert sent["messages"][2] == {"role": "assistant", "content": "Hi", "reasoning_content": "hm"}


@pytest.mark.parametrize(
    ("arguments", "raw", "replayed"),
    [("", "", "{}"), (None, "", "{}"), ({"a": 1}, '{"a":1}', '{"a":1}'), ('{"a"', '{"a"', "{}"), ("{ }", "{ }", "{ }")],
)
def test_odd_arguments(arguments: object, raw: str, replayed: str) -> None:
    """Arguments are kept as they came; what a server could not parse in its history goes back as an empty object."""
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    found = parse_completion(completion({"content": None, "tool_calls": [call]}), asked(), "openai-compatible")
    (part,) = found.parts
    assert isinstance(part, ToolCall)
    assert part.raw_arguments == raw
    # 'stop' beside whole calls is how a forced call ends, and how some servers end any.
    assert found.stop is Stop.TOOLS
    request = asked(UserMessage(group=1, text="x"), said(2, part, provider="openai-compatible"), done(2, 0, "r"))
    body = write_chat_request(request, "openai-compatible", gemini=False)
    assert body["messages"][2]["tool_calls"][0]["function"]["arguments"] == replayed


def test_thoughts_that_only_the_total_counts() -> None:
    """Gemini leaves its thoughts out of completion_tokens and bills them as output."""
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 180}
    found = parse_completion(completion({"content": "x"}, usage=usage), asked(), "gemini")
    assert found.usage == Usage(input_tokens=100, output_tokens=80, reasoning_tokens=60)


@pytest.mark.parametrize("finish", ["error", "function_call_filter: MALFORMED_FUNCTION_CALL"])
def test_a_reply_its_own_server_gave_up_on(finish: str) -> None:
    """A call that the server itself could not read is its error, which another try usually cures."""
    with pytest.raises(BadReply, match="rejected its model's output"):
        parse_completion(completion({"content": None}, finish), asked(), "gemini")


def test_content_in_pieces() -> None:
    """Content may come as a list of typed pieces; only text is text."""
    pieces = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert parse_completion(completion({"content": pieces}), asked(), "x").parts == (Text(text="ab"),)


def test_output_schema() -> None:
    """An output schema is asked for as strict where it can be; Gemini gets its own form of it, and no `strict`."""
    schema = {"type": "object", "properties": {"a": {"const": "x"}}, "required": ["a"], "additionalProperties": False}
    plain = write_chat_request(asked(output_schema=schema), "openai-compatible", gemini=False)["response_format"]
    assert plain == {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": True}}
    gemini = write_chat_request(asked(output_schema=schema), "gemini", gemini=True)["response_format"]["json_schema"]
    projected = {"type": "object", "properties": {"a": {"enum": ["x"], "type": "string"}}, "required": ["a"]}
    assert gemini == {"name": "output", "schema": projected}


def test_a_window_without_a_user_begins_with_one() -> None:
    """Chat templates want the user first; a trimmed window gets a marked line in its place."""
    body = write_chat_request(asked(said(2, Text(text="hi"))), "openai-compatible", gemini=False)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant"]
