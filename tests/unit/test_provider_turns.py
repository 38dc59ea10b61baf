"""Turns: pairing calls and results by place, and giving each call an id that every vendor takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.schemas.message import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage
from midwatch.workers.providers.earlier_turns import make_portable_name
from midwatch.workers.providers.request_turns import Unsendable, split_into_turns


def said(group: int, *ids: str, provider: str = "a") -> AssistantMessage:
    parts = tuple(ToolCall(id=call_id, name="f", raw_arguments="{}") for call_id in ids)
    return AssistantMessage(group=group, parts=parts, provider=provider, model="m")


def done(group: int, ordinal: int, content: str = "r") -> ToolMessage:
    return ToolMessage(group=group, ordinal=ordinal, call_id="whatever", tool="f", content=content)


def ids(*messages: Message, provider: str = "a") -> list[str]:
    return [wire_id for turn in split_into_turns(messages, provider) for wire_id in turn.call_ids]


def test_own_ids_are_kept_and_collisions_are_not() -> None:
    """A vendor's own id goes back as it is the first time; taken, empty and foreign odd ones are made of place."""
    assert ids(said(2, "x.y:1", "x.y:1", ""), *(done(2, n) for n in range(3))) == ["x.y:1", "call_2_1", "call_2_2"]
    assert ids(said(2, "x.y:1", "plain"), done(2, 0), done(2, 1), provider="b") == ["call_2_0", "plain"]
    assert ids(said(2, "p" * 64), done(2, 0), provider="b") == ["call_2_0"]


def test_made_up_ids_do_not_collide_either() -> None:
    """An id that looks like one of ours is told apart from ours."""
    assert ids(said(2, "call_2_1", ""), done(2, 0), done(2, 1)) == ["call_2_1", "call_2_1_2"]


def test_results_find_their_turn_wherever_they_lie() -> None:
    """A result recorded after a later message still belongs to its call."""
    found = split_into_turns(
        (said(2, "x", "y"), UserMessage(group=3, text="wait"), done(2, 1, "Y"), done(2, 0, "X")), "a"
    )
    assert [(wire_id, result.content) for wire_id, result in found[0].results] == [("x", "X"), ("y", "Y")]
    assert [message.text for message in found[0].inputs] == ["wait"]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ((said(2, "x"),), "call 0 has no result"),
        ((said(2, "x", "y"), done(2, 0)), "call 1 has no result"),
        ((done(2, 0),), "the result of call 0 has no open call"),
        ((said(2, "x"), done(2, 1)), "the result of call 1 has no open call"),
        ((said(2, "x"), done(2, 0), done(2, 0)), "the result of call 0 has no open call"),
    ],
)
def test_what_no_vendor_accepts(messages: tuple[Message, ...], words: str) -> None:
    """A call without a result, a result without its call, and two results for one call are refused by name."""
    with pytest.raises(Unsendable, match=words):
        split_into_turns(messages, "a")


names = st.sampled_from(["", "same", "other", "x.y", "call_1_0", "call_2_1"]) | st.text(max_size=50)


@given(st.lists(st.lists(names, max_size=4), max_size=6), st.sampled_from("ab"))
def test_ids_are_unique_whatever_the_models_wrote(turns_of_ids: list[list[str]], provider: str) -> None:
    """Every wire id is unique in its request, usable, and the same when the request is written again."""
    messages: list[Message] = []
    for group, written in enumerate(turns_of_ids, 1):
        messages.append(said(group, *written))
        messages.extend(done(group, ordinal) for ordinal in reversed(range(len(written))))
    found = ids(*messages, provider=provider)
    assert len(found) == len(set(found)) == sum(map(len, turns_of_ids))
    assert all(found)
    assert found == ids(*messages, provider=provider)


@given(st.text(max_size=100))
def test_names_are_ones_that_vendors_take(name: str) -> None:
    """A made-up tool name never makes a conversation unsendable."""
    sent = make_portable_name(name)
    assert 0 < len(sent) <= 64
    assert sent.isascii()
    assert sent.replace("_", "a").replace("-", "a").isalnum()
