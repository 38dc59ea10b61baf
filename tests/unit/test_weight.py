"""The weight of a text: a cheap estimate of its tokens, summed over a conversation."""

from __future__ import annotations

import pytest

from midwatch.orchestration.tokens.weight import SAMPLE_CHARS, SAMPLES, weigh, weigh_all, weigh_message
from midwatch.schemas.message import AssistantMessage, Opaque, Text, ToolCall, ToolMessage, UserMessage
from tests.unit.claims import result, said, tool_call


def test_the_weight_of_a_conversation_is_a_sum():
    """A worker can therefore weigh each message only once, when it reads the message."""
    log = [UserMessage(group=1, text="Where is A-17?"), said(2, "I look.", tool_call("look_up")), result(2, 0)]
    assert weigh_all(log) == sum(map(weigh_message, log)) > 0


def test_every_sent_part_of_a_message_has_weight():
    """This covers texts, calls with ids and arguments, results, and a vendor's opaque blocks."""
    parts = (Text(text="a word"), ToolCall(id="call_1", name="look_up", raw_arguments='{"n": 17}'))
    bare = weigh_message(AssistantMessage(group=2, parts=parts[:1], provider="p", model="m"))
    called = weigh_message(AssistantMessage(group=2, parts=parts, provider="p", model="m"))
    opaque = Opaque(provider="p", raw={"signature": "Zm9v" * 200})
    thought = weigh_message(AssistantMessage(group=2, parts=(*parts, opaque), provider="p", model="m"))
    assert 0 < bare < called < thought - 300
    short, long = (ToolMessage(group=2, ordinal=0, call_id="c", tool="t", content="word " * n) for n in (1, 100))
    assert weigh_message(long) > weigh_message(short) + 50


@pytest.mark.parametrize("text", ["\ud800 half a pair", "\x00\x01", "😀" * 10, "a" * 100, "=" * 100, " " * 100])
def test_no_text_has_a_negative_weight(text: str):
    """Tools return anything. A run of marks or spaces weighs almost nothing, but not less."""
    assert 0 < weigh(text) <= 2 * len(text.encode(errors="backslashreplace")) + 2
    assert weigh("") == 0


def test_the_weight_of_megabytes_comes_from_samples():
    """It is within 5 % of the exact weight, and takes no longer for ten times the text."""
    line = '{"id": 4711, "name": "Anna Weber", "amount": 19.99, "note": "please call before delivery"}\n'
    text = line * (2 * SAMPLES * SAMPLE_CHARS // len(line) + 100)
    pieces = sum(weigh(text[at : at + SAMPLE_CHARS]) for at in range(0, len(text), SAMPLE_CHARS))
    assert weigh(text) == pytest.approx(pieces, rel=0.05)
