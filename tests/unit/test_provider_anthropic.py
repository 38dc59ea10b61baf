"""Anthropic's Messages format: what is written, and how a reply's particulars are read."""

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


def said(group: int, *parts: Part, provider: str = "anthropic") -> AssistantMessage:
    return AssistantMessage(group=group, parts=parts, provider=provider, model="m")


def done(group: int, ordinal: int, content: str, *, is_error: bool = False) -> ToolMessage:
    return ToolMessage(group=group, ordinal=ordinal, call_id="x", tool="f", content=content, is_error=is_error)


def calling(call_id: str = "toolu_1", raw_arguments: str = '{"b":1,"a":2}', name: str = "f") -> ToolCall:
    return ToolCall(id=call_id, name=name, raw_arguments=raw_arguments)


def body(*messages: Message, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": "claude", "system": "Be brief.", "messages": messages, **changes}
    return write_messages_request(ModelRequest(**fields), "anthropic")


def bare(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The blocks of a message without cache breakpoints."""
    return [{key: value for key, value in block.items() if key != "cache_control"} for block in message["content"]]


def breakpoints(value: object) -> int:
    if isinstance(value, dict):
        return ("cache_control" in value) + sum(breakpoints(inner) for inner in value.values())
    return sum(breakpoints(inner) for inner in value) if isinstance(value, list) else 0


def test_first_request() -> None:
    """System and the last tool end cached prefixes; the model and its limit come first; nothing else is asked for."""
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
    """However long the session: system, last tool, and the two latest user turns."""
    tools = (ToolSpec(name="f", description="", input_schema={"type": "object"}, strict=True),)
    history = [m for n in range(1, 41, 2) for m in (UserMessage(group=n, text="a"), said(n + 1, Text(text="b")))]
    sent = body(*history, UserMessage(group=99, text="c"), tools=tools)
    assert breakpoints(sent) == 4
    assert [breakpoints(message) for message in sent["messages"][-3:]] == [1, 0, 1]
    assert sent["tools"][0]["strict"] is True


def test_results_first_in_one_user_turn() -> None:
    """Results precede what was said meanwhile, in the order of the calls; notes are marked; all of it is one turn."""
    sent = body(
        UserMessage(group=1, text="go"),
        said(2, calling("a"), calling("b")),
        NoteMessage(group=2, text="stay on the goal"),
        done(2, 1, "second", is_error=True),
        UserMessage(group=3, text="hurry"),
        done(2, 0, "first"),
    )
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert bare(sent["messages"][2]) == [
        {"type": "tool_result", "tool_use_id": "a", "content": "first"},
        {"type": "tool_result", "tool_use_id": "b", "content": "second", "is_error": True},
        {"type": "text", "text": "<reminder>stay on the goal</reminder>"},
        {"type": "text", "text": "hurry"},
    ]


def test_arguments_of_the_history() -> None:
    """Arguments go back as an object in their own key order, and as {} when they are none."""
    for raw, sent in (
        ('{"b":1,"a":[2]}', {"b": 1, "a": [2]}),
        ("", {}),
        ('{"a": ', {}),
        ("[1]", {}),
        ('{"a":NaN}', {}),
    ):
        message = body(UserMessage(group=1, text="x"), said(2, calling(raw_arguments=raw)), done(2, 0, "r"))
        found = message["messages"][1]["content"][0]["input"]
        assert found == sent
        assert list(found) == list(sent)


def test_own_thoughts_are_replayed_verbatim_and_foreign_ones_dropped() -> None:
    """Opaque blocks go back to their vendor, in place; another vendor's, and blank text, are left out."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig=="}
    theirs = Opaque(provider="openai", raw={"type": "reasoning", "id": "rs"})
    sent = body(
        UserMessage(group=1, text="x"),
        said(2, Opaque(provider="anthropic", raw=thought), theirs, Text(text=" \n"), Text(text="So."), calling()),
        done(2, 0, "r"),
    )
    blocks = sent["messages"][1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]
    assert blocks[0] == thought


def test_a_turn_of_which_nothing_is_left() -> None:
    """An empty model turn (a refusal, foreign thoughts only) is dropped, and the user turns around it become one."""
    sent = body(UserMessage(group=1, text="a"), said(2), UserMessage(group=3, text="b"))
    assert [bare(message) for message in sent["messages"]] == [[{"type": "text", "text": t} for t in ("a", "b")]]


def test_what_the_vendor_refuses_is_never_sent() -> None:
    """Blank user text, errors without a word, names and ids with foreign characters, a beginning without a user."""
    foreign = said(2, calling("functions.f:0", name="functions.f"), provider="gemini")
    sent = body(foreign, done(2, 0, " ", is_error=True), UserMessage(group=3, text="  "))
    assert bare(sent["messages"][0]) == [{"type": "text", "text": "<reminder>Earlier turns are not shown.</reminder>"}]
    assert (sent["messages"][1]["content"][0]["id"], sent["messages"][1]["content"][0]["name"]) == (
        "call_2_0",
        "functions_f",
    )
    assert bare(sent["messages"][2]) == [
        {"type": "tool_result", "tool_use_id": "call_2_0", "content": "(no details)", "is_error": True},
        {"type": "text", "text": "(blank)"},
    ]


def test_building_twice_changes_nothing() -> None:
    """Writing a request leaves its messages as they are: breakpoints do not creep into stored blocks."""
    raw = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    messages = (UserMessage(group=1, text="x"), said(2, Opaque(provider="anthropic", raw=raw)))
    assert body(*messages) == body(*messages)
    assert "cache_control" not in raw


def answer(**changes: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 314,
        "cache_read_input_tokens": 1_631,
        "cache_creation_input_tokens": None,
        "output_tokens": 9,
    }
    return {"content": [], "stop_reason": "end_turn", "usage": usage, "model": "claude-sonnet-4-6", **changes}


ASKED = ModelRequest(model="claude", system="", messages=())


def test_cached_tokens_are_input() -> None:
    """The vendor's input_tokens leaves the cache out; ours is everything that was read."""
    usage = {
        "input_tokens": 14, "cache_read_input_tokens": 1_600, "cache_creation_input_tokens": 31, "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }  # fmt: skip
    assert parse_message(answer(usage=usage), ASKED, "anthropic").usage == Usage(
        input_tokens=1_645, cached_tokens=1_600, cache_write_tokens=31, output_tokens=9, reasoning_tokens=4
    )
    assert parse_message(answer(), ASKED, "anthropic").usage.input_tokens == 1_945


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
def test_stops(raw_stop: str, stop: Stop) -> None:
    """Each stop reason in our words; 'tool_use' without a call is not to be trusted."""
    found = parse_message(answer(stop_reason=raw_stop), ASKED, "anthropic")
    assert (found.stop, found.raw_stop) == (stop, raw_stop)


def test_parts_keep_their_order_and_content() -> None:
    """Thoughts are kept whole as opaque parts, calls as JSON text in the vendor's key order, empty text not at all."""
    content = [
        {"type": "thinking", "thinking": "", "signature": "s"},
        {"type": "text", "text": ""},
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"z": 1, "a": "ü", "n": 1.50}},
    ]
    found = parse_message(answer(content=content, stop_reason="tool_use"), ASKED, "anthropic")
    assert found.parts == (
        Opaque(provider="anthropic", raw=content[0]),
        Text(text="Looking."),
        ToolCall(id="toolu_1", name="f", raw_arguments='{"z":1,"a":"ü","n":1.5}'),
    )
    assert found.stop is Stop.TOOLS
