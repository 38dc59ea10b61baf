"""Overflow strategies: one suite for all of them, and tests for each."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from hashlib import sha1

import pytest

from midwatch import Agent, ContextBudget
from midwatch.orchestration.context.recall import unpack_group
from midwatch.orchestration.context.restore import decompress_text, handles_of, restore
from midwatch.orchestration.context.strategies import STRATEGIES, Room
from midwatch.orchestration.context.window import note_weight
from midwatch.orchestration.protocol.compactions import Compaction, CompactionWork
from midwatch.orchestration.tokens.weight import weigh_all, weigh_message
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import AssistantMessage, Message, NoteMessage, Opaque, ToolMessage, UserMessage
from midwatch.schemas.model import ModelReply
from midwatch.schemas.policy import ContextBudget as Budget
from midwatch.schemas.step import StepRef
from midwatch.workers.bench.context.windows import split_groups
from tests.unit.claims import said, tool_call

AGENT = Agent("clerk", "scripted:m-1", "You help.", context_budget=ContextBudget(max_tokens=10_000))
SHRINKING = [name for name in STRATEGIES if name != "none"]


def never(*_: object) -> ModelReply:
    """Fails if a model is called."""
    raise AssertionError("no summary_model was named")


def work_of(messages: Sequence[Message], memory: Memory | None = None, epoch: int = 0) -> CompactionWork:
    """The work of a compaction of these messages."""
    return CompactionWork(
        ref=StepRef(job_id="job-1", session_id="s1", step="3c"),
        nonce="n",
        epoch=epoch,
        active_job="job-1",
        memory=memory,
        anchor=None,
        messages=tuple(messages),
        weights=tuple(map(weigh_message, messages)),
        last_digest=sha1(b"").hexdigest(),
    )


def compacted(
    name: str, messages: Sequence[Message], room: int, memory: Memory | None = None, epoch: int = 0
) -> tuple[Compaction, list[Message]]:
    """The changes of a strategy, and the conversation after them."""
    work = work_of(messages, memory, epoch)
    done = STRATEGIES[name].compact(work, AGENT, Room(full=2 * room, target=room), never)
    after = list(messages)
    for at, message in done.replaced:
        after[at] = message
    return done, [message for at, message in enumerate(after) if at not in set(done.removed)]


def result(group: int, ordinal: int, content: str, handle: str | None = None) -> ToolMessage:
    """A result."""
    return ToolMessage(
        group=group, ordinal=ordinal, call_id="c", tool="look_up", content=content, handle=handle
    )  # fmt: skip


def talk(turns: int, chars: int = 1_500) -> list[Message]:
    """A prompt, then turns of two calls each."""
    log: list[Message] = [UserMessage(group=1, text="Where are the orders of C-77?")]
    for group in range(2, 2 + turns):
        log.append(said(group, tool_call("look_up", f'{{"n": {group}}}'), tool_call("look_up")))
        log += [result(group, n, f"order W-{group}{n}: " + "all is well; " * (chars // 13)) for n in (0, 1)]
    return log


def total(messages: Sequence[Message], memory: Memory | None) -> int:
    """The weight that counts against the target."""
    return weigh_all(messages) + (note_weight(memory) if memory else 0)


@pytest.mark.parametrize("name", Budget.model_fields["on_overflow"].annotation.__args__)  # type: ignore[union-attr]
def test_every_on_overflow_has_a_strategy(name):
    """`fail` has one too. A turn never compacts with it, but an operator may."""
    assert name in STRATEGIES


@pytest.mark.parametrize("name", SHRINKING)
@pytest.mark.parametrize("room", [800, 2_000, 5_000])
def test_the_rest_fits_the_target(name, room):
    """Groups stay whole and in order. The prompt is unchanged, and the newest group stays."""
    log = talk(12)
    done, after = compacted(name, log, room)
    assert total(after, done.memory) <= room
    assert split_groups(after) == 0
    assert after[0] == log[0]
    assert after[-1].group == log[-1].group
    assert [message.group for message in after] == sorted(message.group for message in after)


@pytest.mark.parametrize("name", SHRINKING)
def test_every_group_that_leaves_is_archived_unchanged(name):
    """No other group is archived. The memory has the number of the last one."""
    log = talk(12)
    done, after = compacted(name, log, 1_600)
    archived = {group: unpack_group(body) for group, body in done.archived}
    assert set(archived) == {message.group for message in log} - {message.group for message in after}
    for group, messages in archived.items():
        assert messages == [message for message in log if message.group == group]
    assert done.memory is not None
    assert done.memory.through_group == max(archived)
    assert done.memory.compactions == 1


@pytest.mark.parametrize("name", SHRINKING)
def test_a_conversation_that_fits_is_unchanged(name):
    """No message changes, and no memory is made."""
    done, after = compacted(name, talk(2, chars=100), 13_000)
    assert done.empty
    assert (done.memory, after) == (None, talk(2, chars=100))


def test_none_changes_nothing():
    """It only releases the lock."""
    assert compacted("none", talk(40), 250)[0] == Compaction()


def test_large_old_results_are_elided_before_groups_leave():
    """If that frees enough, every turn stays, and the whole of each elided result is stored under a handle."""
    log = [
        message.model_copy(update={"content": message.content + f"paid with card X-{at}99"})
        if isinstance(message, ToolMessage)
        else message
        for at, message in enumerate(talk(4, chars=4_000))
    ]
    done, after = compacted("summarize_and_trim", log, 8_000)
    assert (done.removed, len(after)) == ((), len(log))
    assert done.replaced
    kept = dict(done.results)
    for at, stub in done.replaced:
        assert isinstance(stub, ToolMessage)
        assert decompress_text(kept[stub.handle or ""]) == log[at].content
    assert done.memory is not None
    assert done.memory.through_group == 0
    assert "X-299" in done.memory.model_dump_json(), "no stub contains its end"


def test_trim_oldest_makes_no_stubs_and_no_facts():
    """The note only says how to read the originals."""
    done, _ = compacted("trim_oldest", talk(12), 2_000)
    assert (done.replaced, done.results) == ((), ())
    assert done.memory is not None
    assert (done.memory.facts, done.memory.open_items) == ((), ())


@pytest.mark.parametrize("name", SHRINKING)
def test_a_too_large_newest_group_is_cut_but_not_its_prompt(name):
    """The largest message is cut first, to head and tail. The whole is stored under its handle."""
    log = [*talk(1), *[m.model_copy(update={"group": 9}) for m in talk(1, chars=60_000)[1:]]]
    done, after = compacted(name, log, 2_000)
    assert weigh_all(after) <= 2_000
    assert split_groups(after) == 0
    cut = [message for message in after if isinstance(message, ToolMessage) and message.handle]
    kept = {handle: decompress_text(body) for handle, body in done.results}
    assert [restore(message, kept).content for message in cut] == [
        message.content for message in log if isinstance(message, ToolMessage) and message.group == 9
    ]


def long_turn() -> AssistantMessage:
    """A model turn with a long text, long arguments, and a vendor's opaque block."""
    words = "".join(f"Reason {n} is good. " for n in range(2_000))
    parts = said(
        2, words, tool_call("look_up", json.dumps({"text": "é\n" * 9_000, "n": 7}), "c1"), tool_call("x", "{}")
    )
    block = Opaque(provider="scripted", raw={"type": "thinking", "signature": "abc"})
    return parts.model_copy(update={"parts": (block, *parts.parts)})


@pytest.mark.parametrize(
    "message",
    [
        UserMessage(group=1, text="".join(f"Line {n}. " for n in range(9_000))),
        NoteMessage(group=2, text="Mind the rules. " * 4_000),
        long_turn(),
        result(2, 0, "row; " * 40_000),
        result(2, 0, "\U0001f600 \ud83d half" * 4_000),
    ],
    ids=["user", "note", "assistant", "tool", "half-a-surrogate"],
)
def test_a_cut_message_can_be_restored(message):
    """It is restored exactly from the stored results, with parts and ids. A lone surrogate becomes a `?`, as in pages."""
    log = [message, UserMessage(group=3, text="And now?"), said(4, "Well. " * 30)]
    if any("\ud83d" in getattr(message, name, "") for name in ("content", "text")):
        log[0] = message.model_copy(update={"content": message.content.replace("\ud83d", "?")})
    done, _ = compacted("summarize_and_trim", log, 1_600)
    kept = dict(done.results)
    for at, shorter in done.replaced:
        found = {handle: decompress_text(kept[handle]) for handle in handles_of(shorter)}
        assert found
        assert restore(shorter, found) == log[at]
    if not done.replaced:  # it left as a whole, into the archive
        assert next(m for _, body in done.archived for m in unpack_group(body)) == log[0]


def test_a_message_that_is_cut_twice_is_stored_whole():
    """In one compaction only the original is stored. In a later one the rest gets another handle."""
    prompt = UserMessage(group=1, text="".join(f"Line {n}. " for n in range(9_000)))
    newest = said(2, "Thinking aloud. " * 3_000)
    first, after = compacted("summarize_and_trim", [prompt, newest], 3_000, epoch=0)
    second, last = compacted("summarize_and_trim", after, 800, epoch=1)
    kept = {**dict(first.results), **dict(second.results)}
    assert len(kept) == len(first.results) + len(second.results)
    for original, message in zip((prompt, newest), last, strict=True):
        for _ in range(3):
            message = restore(message, {handle: decompress_text(kept[handle]) for handle in handles_of(message)})
        assert message == original


def test_a_result_of_three_megabytes_takes_about_a_second():
    """It is cut, and the whole is stored compressed."""
    log = [*talk(1)[:2], result(2, 0, "row after row of it; " * 150_000), result(2, 1, "fine")]
    done, after = compacted("summarize_and_trim", log, 5_000)
    assert total(after, done.memory) <= 5_000
    ((_, body),) = [
        (handle, body) for handle, body in done.results if len(zlib.decompressobj().decompress(body)) > 3_000_000
    ]
    assert len(body) < 300_000
