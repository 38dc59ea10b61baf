"""A worker's cache of conversations: it counts the memory that it holds, and drops what is no longer used."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from midwatch.orchestration.store.conversation.log_cache import IDLE_S, HeldMark, LogCache, encode
from midwatch.schemas.message import AssistantMessage, Text, ToolCall, ToolMessage, UserMessage


def conversation(turns: int, result: str) -> list[bytes]:
    """The log of a session with one tool call a turn."""
    log = [encode(UserMessage(group=0, text="What is the weather?"))]
    for turn in range(turns):
        call = ToolCall(id=f"call_{turn}", name="search", raw_arguments=f'{{"query": "{turn}"}}')
        parts = (Text(text=f"I look at page {turn}."), call)
        log.append(encode(AssistantMessage(group=turn, parts=parts, provider="anthropic", model="claude-sonnet-4-6")))
        log.append(
            encode(ToolMessage(group=turn, ordinal=0, call_id=call.id, tool="search", content=f"{turn} {result}"))
        )
    return log


def add(cache: LogCache, session_id: str, log: list[bytes]) -> None:
    """Put a whole conversation into the cache."""
    cache.extend(session_id, HeldMark(), 0, 0, [bytes(bytearray(entry)) for entry in log])


def held(cache: LogCache, session_id: str) -> bool:
    """Whether the cache has a copy of the session."""
    return cache.mark(session_id).length > 0


@pytest.mark.parametrize("turns", [2, 20])
@pytest.mark.parametrize(
    "result", ["ok", "row " * 250, "row " * 5_000, "Zürich " * 300, "東京都 " * 600, "done 🎉 " * 600],
    ids=["short", "1 KB", "20 KB", "Latin", "Japanese", "emoji"],
)  # fmt: skip
def test_the_counted_memory_is_the_memory_that_is_held(turns: int, result: str) -> None:
    """At most a third too low or too high, for short and long results, also in scripts that take more bytes a character."""
    log = conversation(turns, result)
    sessions, one = 4, LogCache(max_bytes=1)
    add(one, "first", log)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    cache = LogCache(max_bytes=1_000_000_000)
    for number in range(sessions):
        add(cache, str(number), log)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    counted = sum(cache.mark(str(number)).copy.held_bytes for number in range(sessions))  # type: ignore[union-attr]
    assert 0.67 <= counted / (after - before) <= 1.5


def test_the_oldest_copies_are_dropped_when_memory_is_full() -> None:
    """A new conversation drops the one that was used least recently. The newest one is kept, however large it is."""
    log = conversation(10, "row " * 250)
    probe = LogCache()
    add(probe, "x", log)
    copy = probe.mark("x").copy
    assert copy
    cache = LogCache(max_bytes=2 * copy.held_bytes)
    add(cache, "first", log)
    add(cache, "second", log)
    cache.extend("first", cache.mark("first"), 0, len(log), [])
    add(cache, "third", log)
    assert [held(cache, name) for name in ("first", "second", "third")] == [True, False, True]
    add(cache, "large", conversation(100, "row " * 250))
    assert [held(cache, name) for name in ("first", "third", "large")] == [False, False, True]


def test_an_idle_copy_is_dropped() -> None:
    """Another worker has ended its job, so this worker hears no more of it."""
    now_s = 0.0
    cache = LogCache(monotonic=lambda: now_s)
    add(cache, "left", conversation(2, "ok"))
    now_s = IDLE_S / 2
    add(cache, "used", conversation(2, "ok"))
    now_s = IDLE_S + 1
    add(cache, "new", conversation(2, "ok"))
    assert [held(cache, name) for name in ("left", "used", "new")] == [False, True, True]
