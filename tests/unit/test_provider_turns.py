"""Splitting a conversation into turns, pairing calls with results, and choosing call ids that vendors accept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midwatch.schemas.message import AssistantMessage, Message, Text, ToolCall, ToolMessage, UserMessage
from midwatch.workers.providers.earlier_turns import make_portable_name
from midwatch.workers.providers.request_turns import GO_ON, NO_RESULT, split_into_turns


def assistant(group: int, *ids: str, provider: str = "a") -> AssistantMessage:
    parts = tuple(ToolCall(id=call_id, name="f", raw_arguments="{}") for call_id in ids)
    return AssistantMessage(group=group, parts=parts, provider=provider, model="m")


def tool_result(group: int, ordinal: int, content: str = "r") -> ToolMessage:
    return ToolMessage(group=group, ordinal=ordinal, call_id="x", tool="f", content=content)


def ids(*messages: Message, provider: str = "a") -> list[str]:
    return [call_id for turn in split_into_turns(messages, provider) for call_id in turn.call_ids]


def test_usable_ids_are_kept_and_others_replaced() -> None:
    """A vendor's own id is kept at its first use. Repeated, empty and unusable foreign ids are replaced."""
    assert ids(assistant(2, "x.y:1", "x.y:1", ""), *(tool_result(2, n) for n in range(3))) == [
        "x.y:1",
        "call_2_1",
        "call_2_2",
    ]
    assert ids(assistant(2, "x.y:1", "plain"), tool_result(2, 0), tool_result(2, 1), provider="b") == [
        "call_2_0",
        "plain",
    ]
    assert ids(assistant(2, "p" * 64), tool_result(2, 0), provider="b") == ["call_2_0"]


def test_generated_ids_do_not_collide() -> None:
    """A generated id differs from a model's id of the same form."""
    assert ids(assistant(2, "call_2_1", ""), tool_result(2, 0), tool_result(2, 1)) == ["call_2_1", "call_2_1_2"]


def test_late_result_belongs_to_its_call() -> None:
    """A result that was recorded after a later message still belongs to its call."""
    found = split_into_turns(
        (assistant(2, "x", "y"), UserMessage(group=3, text="wait"), tool_result(2, 1, "Y"), tool_result(2, 0, "X")), "a"
    )
    assert [(call_id, result.content) for call_id, result in found[0].results] == [("x", "X"), ("y", "Y")]
    assert [message.text for message in found[0].inputs] == ["wait"]


def sent(*messages: Message) -> list[tuple[tuple[str, ...], list[str]]]:
    """(names of the calls, results) of each turn."""
    return [
        (
            tuple(call.name for call in turn.assistant.tool_calls) if turn.assistant else (),
            [result.content for _, result in turn.results],
        )
        for turn in split_into_turns(messages, "a")
    ]


def test_a_call_without_a_result_gets_one() -> None:
    """Every vendor refuses a call without a result. A damaged log must not end a session, so the result is made up."""
    assert sent(assistant(2, "x")) == [(("f",), [NO_RESULT])]
    assert sent(assistant(2, "x", "y"), tool_result(2, 1)) == [(("f", "f"), [NO_RESULT, "r"])]


def test_a_result_without_a_call_gets_one() -> None:
    """A result whose call is gone stays a result, with a made-up call. As a user's text, it would be trusted more."""
    assert sent(tool_result(2, 0)) == [(("f",), ["r"])]
    assert sent(assistant(2, "x"), tool_result(2, 0), tool_result(2, 1, "s")) == [(("f",), ["r"]), (("f",), ["s"])]


def test_a_second_result_of_a_call_is_left_out() -> None:
    """The model has seen the first result of a call, so only that one is sent."""
    assert sent(assistant(2, "x"), tool_result(2, 0), tool_result(2, 0, "again")) == [(("f",), ["r"])]


def test_a_note_follows_a_model_turn_without_an_answer() -> None:
    """A request may not end with a model message, nor hold two in a row. A turn of text is followed by a note."""
    said = AssistantMessage(group=1, parts=(Text(text="hm"),), provider="a", model="m")
    found = split_into_turns((said, said.model_copy(update={"group": 2}), UserMessage(group=3, text="x")), "a")
    assert [[message.text for message in turn.inputs] for turn in found] == [[GO_ON], ["x"]]


names = st.sampled_from(["", "same", "other", "x.y", "call_1_0", "call_2_1"]) | st.text(max_size=50)


@given(st.lists(st.lists(names, max_size=4), max_size=6), st.sampled_from("ab"))
def test_sent_ids_are_unique_and_stable(turns_of_ids: list[list[str]], provider: str) -> None:
    """Each sent id is unique in its request, is not empty, and is the same when the request is written again."""
    messages: list[Message] = []
    for group, written in enumerate(turns_of_ids, 1):
        messages.append(assistant(group, *written))
        messages.extend(tool_result(group, ordinal) for ordinal in reversed(range(len(written))))
    found = ids(*messages, provider=provider)
    assert len(found) == len(set(found)) == sum(map(len, turns_of_ids))
    assert all(found)
    assert found == ids(*messages, provider=provider)


@given(st.text(max_size=100))
def test_any_tool_name_becomes_acceptable(name: str) -> None:
    """Every tool name that a model may invent becomes a name that all vendors accept."""
    sent = make_portable_name(name)
    assert 0 < len(sent) <= 64
    assert sent.isascii()
    assert sent.replace("_", "a").replace("-", "a").isalnum()
