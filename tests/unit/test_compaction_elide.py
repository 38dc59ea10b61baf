"""Elide large results, and cut one message that is too large."""

from __future__ import annotations

import json

import pytest

from midwatch.orchestration.context.cut import cut
from midwatch.orchestration.context.elide import elide
from midwatch.schemas.message import AssistantMessage, Message, Text, ToolCall, ToolMessage, UserMessage


def result(group: int, size: int, handle: str | None = None, fill: str = "x") -> ToolMessage:
    return ToolMessage(group=group, ordinal=0, call_id="c", tool="read", content=fill * size, handle=handle)


def handle_for(message: ToolMessage) -> str:
    return f"res-{message.group}"


def test_the_largest_old_result_is_elided_first() -> None:
    """No more results are elided than needed."""
    messages = [result(2, 5_000), result(3, 50_000, fill="y"), result(4, 9_000, fill="z")]
    (elision,) = elide(messages, 1_000, newest_group=9, handle_for=handle_for)
    assert elision.index == 1
    assert elision.message.handle == "res-3"
    assert 'read_result(handle="res-3"' in elision.message.content
    assert elision.freed > 2_800
    assert not elision.kept_already


def test_stored_and_repeated_results_are_elided_before_others() -> None:
    """They are cheaper: nothing has to be stored, or the window has the same text again."""
    messages = [result(2, 50_000, fill="y"), result(3, 5_000, "res-old"), result(4, 6_000), result(5, 6_000)]
    assert [one.index for one in elide(messages, 1, newest_group=9, handle_for=handle_for)] == [2]
    assert [one.index for one in elide(messages, 500, newest_group=9, handle_for=handle_for)] == [1, 2]


def test_newest_pinned_and_small_results_stay() -> None:
    """The model may be working with them."""
    messages: list[Message] = [
        UserMessage(group=1, text="u" * 9_000),
        result(2, 9_000),
        result(3, 500),
        result(4, 9_000),
    ]
    assert elide(messages, 10**9, newest_group=4, handle_for=handle_for, pinned={2}) == ()


def test_a_stub_is_not_elided_again() -> None:
    """A second pass finds nothing to elide."""
    messages: list[Message] = [result(2, 9_000)]
    (elision,) = elide(messages, 1, newest_group=9, handle_for=handle_for)
    assert elide([elision.message], 10**9, newest_group=9, handle_for=handle_for) == ()


LONG = "word " * 40_000
CALL = ToolCall(id="c", name="write", raw_arguments=json.dumps({"path": "/a/b.txt", "content": LONG}))


@pytest.mark.parametrize(
    "message",
    [
        UserMessage(group=1, text=LONG),
        result(2, 200_000),
        result(2, 200_000, fill="\x01"),
        result(2, 200_000, fill="\ud800"),
        AssistantMessage(group=2, parts=(Text(text=LONG), CALL), provider="p", model="m"),
    ],
)
def test_one_oversized_message_is_cut_to_its_room(message: Message) -> None:
    """A cut message of any role fits, can be stored, and says where the rest is."""
    done = cut(message, 10_000, "res-cut")
    assert len(done.message.model_dump_json()) <= 10_000
    assert done.rest is not None
    assert "res-cut" in done.message.model_dump_json()


def test_a_cut_call_keeps_its_place_and_its_short_arguments() -> None:
    """The call still belongs to its result, and its arguments are still an object."""
    message = AssistantMessage(group=2, parts=(CALL,), provider="p", model="m")
    done = cut(message, 10_000, "res-cut").message
    assert isinstance(done, AssistantMessage)
    (call,) = done.tool_calls
    assert (call.id, call.name) == ("c", "write")
    assert json.loads(call.raw_arguments)["path"] == "/a/b.txt"


def test_a_message_that_fits_is_unchanged() -> None:
    """Cutting it returns the same message."""
    message = UserMessage(group=1, text="hello")
    assert cut(message, 10_000, "res-cut").message is message
    assert cut(message, 10_000, "res-cut").rest is None


def test_a_result_with_a_handle_keeps_it() -> None:
    """The whole is already stored there. The shortened text must not replace it."""
    done = cut(result(2, 200_000, "res-old"), 10_000, "res-new")
    assert isinstance(done.message, ToolMessage)
    assert (done.message.handle, done.rest) == ("res-old", None)
