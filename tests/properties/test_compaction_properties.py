"""Promises of compaction that hold for any conversation."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.orchestration.context.cut import cut
from midwatch.orchestration.context.elide import elide
from midwatch.orchestration.context.fact_ledger import absorb_facts
from midwatch.orchestration.context.render import render, rendered_bytes
from midwatch.orchestration.context.summary_extractive import ExtractiveSummarizer
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import AssistantMessage, Message, Text, ToolCall, ToolMessage, UserMessage

BARE_BYTES = 400
"""Size of an empty note."""

WORDS = st.sampled_from(
    [
        "#W2378156",
        "ann@example.org",
        "/srv/a.csv",
        "2026-01-02",
        "1284.50",
        "Ann Smith",
        "x_y",
        "decided to go.",
        '{"id": "R-77"}',
        "\ud800",
        "\x00",
        ", ",
        " · ",
        "?",
        '"',
        "- [ ] ship it\n",
        "日本語の文章です",
    ]
)
TOOLS = st.sampled_from(["look", "no such\ntool"])
TEXT = st.one_of(
    st.text(max_size=80), st.lists(WORDS, max_size=12).map(" ".join), st.lists(WORDS, max_size=4).map("".join)
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Generate whole groups: user turns, and assistant turns with a result for each call."""
    messages: list[Message] = []
    for group in range(1, draw(st.integers(1, 7))):
        if draw(st.booleans()):
            messages.append(UserMessage(group=group, text=draw(TEXT)))
            continue
        arguments = draw(st.lists(TEXT, max_size=3))
        calls = tuple(ToolCall(id="same", name="look", raw_arguments=one) for one in arguments)
        messages.append(AssistantMessage(group=group, parts=(Text(text=draw(TEXT)), *calls), provider="p", model="m"))
        messages += [
            ToolMessage(
                group=group, ordinal=n, call_id="same", tool=draw(TOOLS), content=draw(TEXT) * draw(st.integers(1, 300))
            )
            for n in range(len(calls))
        ]
    return messages


@settings(deadline=None, max_examples=60)
@given(conversations(), conversations(), st.integers(0, 5_000))
def test_the_note_fits_its_room(first: list[Message], second: list[Message], room_bytes: int) -> None:
    """For any conversation and any number of compactions, the note is within its size limit and can be stored."""
    memory = ExtractiveSummarizer().summarize(Memory(), first, room_bytes)
    memory = ExtractiveSummarizer().summarize(memory, second, room_bytes, live=first)
    assert rendered_bytes(memory) <= max(room_bytes, BARE_BYTES)
    assert Memory.model_validate_json(memory.model_dump_json()) == memory


@settings(deadline=None, max_examples=60)
@given(conversations(), st.integers(0, 5_000))
def test_the_same_messages_give_the_same_note(messages: list[Message], room_bytes: int) -> None:
    """It does not depend on a clock, on chance, or on the order of a set."""
    one, two = (ExtractiveSummarizer().summarize(Memory(), messages, room_bytes) for _ in range(2))
    assert render(one) == render(two)


@settings(deadline=None, max_examples=60)
@given(conversations())
def test_absorbing_twice_adds_nothing(messages: list[Message]) -> None:
    """A compaction may be repeated after a crash."""
    once = absorb_facts(Memory(), messages, 100_000)
    assert absorb_facts(once, messages, 100_000) == once


@settings(deadline=None, max_examples=60)
@given(conversations(), st.integers(0, 12_000), st.integers(0, 8))
def test_elision_splits_no_group(messages: list[Message], excess: int, newest_group: int) -> None:
    """Every call keeps its result in place. Only old results change, and become shorter."""
    elisions = elide(messages, excess, newest_group=newest_group, handle_for=lambda one: f"res-{one.group}")
    for one in elisions:
        before = messages[one.index]
        assert one.original is before
        assert isinstance(before, ToolMessage)
        assert before.group < newest_group
        assert (before.group, before.ordinal, before.call_id) == (
            one.message.group,
            one.message.ordinal,
            one.message.call_id,
        )
        assert one.freed > 0
        one.message.model_dump_json()


@settings(deadline=None, max_examples=60)
@given(conversations(), st.integers(2_500, 9_000))
def test_a_cut_message_fits_its_room(messages: list[Message], room_bytes: int) -> None:
    """Any single message can be cut to a given size. It keeps its role and its other fields."""
    for message in messages:
        done = cut(message, room_bytes, "res-cut").message
        assert (done.role, done.group) == (message.role, message.group)
        if done is not message:
            assert len(done.model_dump_json().encode()) <= room_bytes
