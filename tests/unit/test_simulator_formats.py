"""The vendor formats: what they parse, refuse and write, without a server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.workers.simulator.brains.brain import ConversationTurn, SimulatedCall
from midwatch.workers.simulator.metering import Meter
from midwatch.workers.simulator.vendor_formats import FORMATS_BY_PATH
from midwatch.workers.simulator.vendor_formats.compact_json import dump_json, encode_json
from midwatch.workers.simulator.vendor_formats.openai_errors import format_duration
from midwatch.workers.simulator.vendor_formats.request_parsing import parse_request, split_reminders
from midwatch.workers.simulator.vendor_formats.result_pairing import OrphanResult, Result, UnansweredCalls, pair_results
from midwatch.workers.simulator.vendor_formats.vendor_format import (
    BadRequest,
    RateState,
    Refusal,
    RefusalKind,
    SimulatedFormat,
)

MESSAGES, RESPONSES, CHAT = (
    FORMATS_BY_PATH[path] for path in ("/v1/messages", "/v1/responses", "/v1/chat/completions")
)
every_format = pytest.mark.parametrize(
    "vendor_format", FORMATS_BY_PATH.values(), ids=lambda vendor_format: vendor_format.name
)


def turn_texts(vendor_format: SimulatedFormat, body: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (role, text) of a request's turns."""
    return [
        (turn.role, turn.text) for turn in parse_request(vendor_format, dump_json(body).encode()).conversation.turns
    ]


@every_format
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"model": 1}', b'{"model": "m", "tools": 7}', b"[" * 9999])
def test_invalid_body_is_a_bad_request(vendor_format: SimulatedFormat, body: bytes) -> None:
    """A body that is no valid request is refused with BadRequest, and raises nothing else."""
    with pytest.raises(BadRequest):
        parse_request(vendor_format, body)


@given(text=st.text())
def test_user_text_without_a_reminder_is_unchanged(text: str) -> None:
    """A user text without a reminder is one unchanged turn, because conversations are identified by it."""
    if "<reminder>" not in text:
        assert split_reminders(text) == [ConversationTurn("user", text)]


def test_reminder_paragraphs_are_notes() -> None:
    """A reminder that is a whole text or paragraph is a note. A reminder inside a sentence is not."""
    note = "<reminder>stay\n\non it</reminder>"
    assert split_reminders(note) == [ConversationTurn("note", note)]
    assert split_reminders(f"hello\n\n{note}") == [ConversationTurn("user", "hello"), ConversationTurn("note", note)]
    assert split_reminders(f"{note}\n\nhello\n\n{note}") == [
        ConversationTurn("note", note),
        ConversationTurn("user", "hello"),
        ConversationTurn("note", note),
    ]
    assert split_reminders("what does <reminder>x</reminder> mean?") == [
        ConversationTurn("user", "what does <reminder>x</reminder> mean?")
    ]


def test_consecutive_assistant_items_are_one_turn() -> None:
    """Text, reasoning and several calls of the assistant form one turn."""
    call = {"type": "function_call", "call_id": "c1", "name": "find", "arguments": "{}"}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        call,
        {"type": "reasoning", "id": "rs_2", "summary": []},
        {**call, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c2", "output": "two"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "one"}]},
    ]
    conversation = parse_request(RESPONSES, dump_json({"model": "m", "input": items}).encode()).conversation
    assert [turn.role for turn in conversation.turns] == ["user", "assistant", "tool", "tool"]
    assert [turn.text for turn in conversation.results()] == ["one", "two"]
    assert conversation.turn == 2


def test_text_parts_and_pictures() -> None:
    """Text parts are joined. A part without text is replaced by its type in brackets."""
    parts = [{"type": "text", "text": "see "}, {"type": "image_url", "image_url": {"url": "data:..."}}]
    assert turn_texts(CHAT, {"model": "m", "messages": [{"role": "user", "content": parts}]}) == [
        ("user", "see [image_url]")
    ]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        ([{"role": "user", "content": ""}], "must be non-empty"),
        ([{"role": "wizard", "content": "x"}], "expected user, assistant or system, got 'wizard'"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "prefill"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "tool_result", "tool_use_id": "t"}]}],
            "must come first",
        ),
        ([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}], "unexpected `tool_use_id`.*: t"),
    ],
)
def test_messages_that_the_vendor_refuses(messages: list[Any], message: str) -> None:
    """The server refuses messages that Anthropic refuses."""
    with pytest.raises(BadRequest, match=message):
        turn_texts(MESSAGES, {"model": "m", "max_tokens": 9, "messages": messages})


@pytest.mark.parametrize("kept", [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}])
def test_state_at_the_vendor_is_refused(kept: dict[str, str]) -> None:
    """The server stores no conversations, so it refuses requests that refer to a stored one."""
    with pytest.raises(BadRequest, match="send the whole conversation"):
        turn_texts(RESPONSES, {"model": "m", "input": "hi", **kept})


def test_results_are_paired_one_by_one_in_call_order() -> None:
    """Results may come in any order and are put in the order of the calls. A repeated id belongs to two calls."""
    calls = (SimulatedCall("a", "x", ""), SimulatedCall("b", "y", ""), SimulatedCall("a", "z", ""))
    history = [
        ConversationTurn("assistant", "", calls),
        Result("b", "2"),
        Result("a", "1"),
        Result("a", "3"),
        ConversationTurn("user", "next"),
    ]
    assert [turn.text for turn in pair_results(history)] == ["", "1", "2", "3", "next"]
    with pytest.raises(UnansweredCalls, match="b"):
        pair_results(
            [
                ConversationTurn("assistant", "", calls),
                Result("a", ""),
                Result("a", ""),
                ConversationTurn("user", "next"),
            ]
        )
    with pytest.raises(UnansweredCalls, match="a, b, a"):
        pair_results([ConversationTurn("assistant", "", calls)])
    with pytest.raises(OrphanResult, match="c"):
        pair_results([ConversationTurn("assistant", "", calls), Result("c", "")])


@every_format
@pytest.mark.parametrize("kind", RefusalKind)
def test_every_format_writes_every_refusal(vendor_format: SimulatedFormat, kind: RefusalKind) -> None:
    """Each refusal has an error status and a complete message in each format."""
    status, body = vendor_format.write_refusal(
        Refusal(kind, "the detail", "m", tokens=9, limit=8, retry_after_s=1.5), "req_1"
    )
    assert 400 <= status < 600
    assert body["error"]["message"]
    assert "{" not in body["error"]["message"]


@every_format
def test_rate_headers_have_the_vendors_names(vendor_format: SimulatedFormat) -> None:
    """The headers have the limit, the remaining amount and the reset time, but only if there is a limit."""
    now = datetime(2026, 11, 30, tzinfo=UTC)
    assert len(vendor_format.write_headers("req_1", None, now)) < len(
        vendor_format.write_headers("req_1", RateState(60, 12, 90.0), now)
    )
    message = vendor_format.write_headers("req_1", RateState(60, 12, 90.0), now)
    resets = [value for name, value in message.items() if "reset" in name]
    assert resets == (["2026-11-30T00:01:30Z"] if vendor_format is MESSAGES else ["1m30s"])


def test_openai_durations_are_written_with_their_unit() -> None:
    """A duration is written in milliseconds below one second, then in seconds, then in minutes and seconds."""
    assert [format_duration(seconds) for seconds in (0.019, 1, 1.5, 360)] == ["19ms", "1s", "1.5s", "6m0s"]


def test_lone_surrogate_is_escaped() -> None:
    """A lone surrogate can't be encoded, so it is sent as an escape sequence."""
    assert encode_json({"text": "ü"}) == '{"text":"ü"}'.encode()
    assert encode_json({"text": "\ud800"}) == b'{"text": "\\ud800"}'


def test_prompt_cache_stores_prefixes() -> None:
    """The prefix of a longer request that was sent before counts as cached."""
    meter = Meter()
    first: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x" * 8_000}]}
    more = [{"role": "assistant", "content": "y" * 4_000}, {"role": "user", "content": "z"}]
    longer = {"model": "m", "messages": first["messages"] + more}
    cold = meter.read(parse_request(CHAT, dump_json(first).encode()))
    warm = meter.read(parse_request(CHAT, dump_json(longer).encode()))
    assert (cold.cached_tokens, warm.cached_tokens) == (0, cold.input_tokens)
    assert warm.input_tokens - cold.input_tokens > 1_000
