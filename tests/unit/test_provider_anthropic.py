"""Anthropic's Messages format: writing requests and parsing replies."""

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
from midwatch.workers.providers.anthropic.reply import parse_message
from midwatch.workers.providers.anthropic.request import write_messages_request

CACHED = {"type": "ephemeral"}


def assistant(group: int, *parts: Part, provider: str = "anthropic") -> AssistantMessage:
    return AssistantMessage(group=group, parts=parts, provider=provider, model="m")


def tool_result(group: int, ordinal: int, content: str, *, is_error: bool = False) -> ToolMessage:
    return ToolMessage(group=group, ordinal=ordinal, call_id="x", tool="f", content=content, is_error=is_error)


def tool_call(call_id: str = "toolu_1", raw_arguments: str = '{"b":1,"a":2}', name: str = "f") -> ToolCall:
    return ToolCall(id=call_id, name=name, raw_arguments=raw_arguments)


def body(*messages: Message, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": "claude", "system": "Be brief.", "messages": messages, **changes}
    return write_messages_request(ModelRequest(**fields), "anthropic")


def without_breakpoints(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the blocks of a message without their cache breakpoints."""
    return [{key: value for key, value in block.items() if key != "cache_control"} for block in message["content"]]


def count_breakpoints(value: object) -> int:
    if isinstance(value, dict):
        return ("cache_control" in value) + sum(count_breakpoints(inner) for inner in value.values())
    return sum(count_breakpoints(inner) for inner in value) if isinstance(value, list) else 0


def test_first_request_has_all_fields() -> None:
    """The system prompt and the last tool have a cache breakpoint. The body has no fields but the expected ones."""
    tools = tuple(ToolSpec(name=n, description=f"does {n}", input_schema={"type": "object"}) for n in ("f", "g"))
    assert body(UserMessage(group=1, text="hi"), tools=tools, max_output_tokens=100) == {
        "model": "claude",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": CACHED}],
        "tools": [
            {"name": "f", "description": "does f", "input_schema": {"type": "object"}},
            {"name": "g", "description": "does g", "input_schema": {"type": "object"}, "cache_control": CACHED},
        ],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": CACHED}]}],
    }


def test_four_breakpoints_and_no_more() -> None:
    """A long session also has four breakpoints: system prompt, last tool and the two latest user messages."""
    tools = (ToolSpec(name="f", description="", input_schema={"type": "object"}, strict=True),)
    history = [m for n in range(1, 41, 2) for m in (UserMessage(group=n, text="a"), assistant(n + 1, Text(text="b")))]
    sent = body(*history, UserMessage(group=99, text="c"), tools=tools)
    assert count_breakpoints(sent) == 4
    assert [count_breakpoints(message) for message in sent["messages"][-3:]] == [1, 0, 1]
    assert sent["tools"][0]["strict"] is True


def test_results_first_in_one_user_turn() -> None:
    """Results come first, in the order of the calls, then notes and user texts. Together they form one user message."""
    sent = body(
        UserMessage(group=1, text="go"),
        assistant(2, tool_call("a"), tool_call("b")),
        NoteMessage(group=2, text="stay on the goal"),
        tool_result(2, 1, "second", is_error=True),
        UserMessage(group=3, text="hurry"),
        tool_result(2, 0, "first"),
    )
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert without_breakpoints(sent["messages"][2]) == [
        {"type": "tool_result", "tool_use_id": "a", "content": "first"},
        {"type": "tool_result", "tool_use_id": "b", "content": "second", "is_error": True},
        {"type": "text", "text": "<reminder>stay on the goal</reminder>"},
        {"type": "text", "text": "hurry"},
    ]


def test_arguments_of_the_history() -> None:
    """Arguments are sent back as an object in their original key order, or as {} if they are no object."""
    for raw, sent in (
        ('{"b":1,"a":[2]}', {"b": 1, "a": [2]}),
        ("", {}),
        ('{"a": ', {}),
        ("[1]", {}),
        ('{"a":NaN}', {}),
    ):
        message = body(
            UserMessage(group=1, text="x"), assistant(2, tool_call(raw_arguments=raw)), tool_result(2, 0, "r")
        )
        found = message["messages"][1]["content"][0]["input"]
        assert found == sent
        assert list(found) == list(sent)


def test_only_own_thinking_blocks_are_sent_back() -> None:
    """Opaque blocks are sent back unchanged to their own vendor. Other vendors' blocks and blank text are left out."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig=="}
    theirs = Opaque(provider="openai", raw={"type": "reasoning", "id": "rs"})
    sent = body(
        UserMessage(group=1, text="x"),
        assistant(
            2, Opaque(provider="anthropic", raw=thought), theirs, Text(text=" \n"), Text(text="So."), tool_call()
        ),
        tool_result(2, 0, "r"),
    )
    blocks = sent["messages"][1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]
    assert blocks[0] == thought


def test_empty_model_turn_is_dropped() -> None:
    """A model turn without content that can be sent is dropped, and the user messages around it are merged."""
    sent = body(UserMessage(group=1, text="a"), assistant(2), UserMessage(group=3, text="b"))
    assert [without_breakpoints(message) for message in sent["messages"]] == [
        [{"type": "text", "text": t} for t in ("a", "b")]
    ]


def test_what_the_vendor_refuses_is_never_sent() -> None:
    """Blank texts, empty errors, invalid names and ids, and a missing first user message are replaced."""
    foreign = assistant(2, tool_call("functions.f:0", name="functions.f"), provider="gemini")
    sent = body(foreign, tool_result(2, 0, " ", is_error=True), UserMessage(group=3, text="  "))
    assert without_breakpoints(sent["messages"][0]) == [
        {"type": "text", "text": "<reminder>Earlier turns are not shown.</reminder>"}
    ]
    assert (sent["messages"][1]["content"][0]["id"], sent["messages"][1]["content"][0]["name"]) == (
        "call_2_0",
        "functions_f",
    )
    assert without_breakpoints(sent["messages"][2]) == [
        {"type": "tool_result", "tool_use_id": "call_2_0", "content": "(no details)", "is_error": True},
        {"type": "text", "text": "(blank)"},
    ]


def test_building_twice_changes_nothing() -> None:
    """Writing a request does not change its messages. No breakpoint is added to a stored block."""
    raw = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    messages = (UserMessage(group=1, text="x"), assistant(2, Opaque(provider="anthropic", raw=raw)))
    assert body(*messages) == body(*messages)
    assert "cache_control" not in raw


def message(**changes: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 314,
        "cache_read_input_tokens": 1_631,
        "cache_creation_input_tokens": None,
        "output_tokens": 9,
    }
    return {"content": [], "stop_reason": "end_turn", "usage": usage, "model": "claude-sonnet-4-6", **changes}


REQUEST = ModelRequest(model="claude", system="", messages=())


def test_cached_tokens_are_input() -> None:
    """Anthropic's `input_tokens` excludes cached tokens; our count includes them."""
    usage = {
        "input_tokens": 14, "cache_read_input_tokens": 1_600, "cache_creation_input_tokens": 31, "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }  # fmt: skip
    assert parse_message(message(usage=usage), REQUEST, "anthropic").usage == Usage(
        input_tokens=1_645, cached_tokens=1_600, cache_write_tokens=31, output_tokens=9, reasoning_tokens=4
    )
    assert parse_message(message(), REQUEST, "anthropic").usage.input_tokens == 1_945


@pytest.mark.parametrize(
    ("raw_stop", "stop"),
    [
        ("end_turn", Stop.END),
        ("stop_sequence", Stop.END),
        ("max_tokens", Stop.CONTEXT_FULL),
        ("model_context_window_exceeded", Stop.CONTEXT_FULL),
        ("refusal", Stop.REFUSAL),
        ("pause_turn", Stop.PAUSE),
        ("tool_use", Stop.UNKNOWN),
        ("something_new", Stop.UNKNOWN),
    ],
)
def test_stop_reasons_are_mapped(raw_stop: str, stop: Stop) -> None:
    """Each stop reason has a Stop. A 'tool_use' without a call is UNKNOWN."""
    found = parse_message(message(stop_reason=raw_stop), REQUEST, "anthropic")
    assert (found.stop, found.raw_stop) == (stop, raw_stop)


def test_parts_keep_their_order_and_content() -> None:
    """Thinking is kept as an opaque part, and arguments as JSON text in the original key order. Empty text is dropped."""
    content = [
        {"type": "thinking", "thinking": "", "signature": "s"},
        {"type": "text", "text": ""},
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"z": 1, "a": "ü", "n": 1.50}},
    ]
    found = parse_message(message(content=content, stop_reason="tool_use"), REQUEST, "anthropic")
    assert found.parts == (
        Opaque(provider="anthropic", raw=content[0]),
        Text(text="Looking."),
        ToolCall(id="toolu_1", name="f", raw_arguments='{"z":1,"a":"ü","n":1.5}'),
    )
    assert found.stop is Stop.TOOLS
