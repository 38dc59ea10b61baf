"""Elide old, large tool results: replace each by a stub with a handle, which `read_result` can page."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from midwatch.orchestration.tokens.weight import weigh
from midwatch.orchestration.tools.result_pages import PAGE_CHARS, READ_RESULT
from midwatch.schemas.message import Message, ToolMessage

MIN_BYTES = 2_000
"""A smaller result is not elided: to read it again would cost more than is saved."""

HEAD_CHARS = 300


@dataclass(frozen=True)
class Elision:
    """One replacement. Before it is used, the caller must store `original` under the handle and absorb its facts."""

    index: int
    """Index of the message in the given list."""
    message: ToolMessage
    """The stub that replaces the message."""
    original: ToolMessage
    freed: int
    """The weight that is freed."""

    @property
    def kept_already(self) -> bool:
        """Is the whole result already stored under its handle, since the tool returned it?"""
        return self.original.handle is not None


def elide(
    messages: Sequence[Message],
    excess: int,
    *,
    newest_group: int,
    handle_for: Callable[[ToolMessage], str],
    pinned: Set[int] = frozenset(),
) -> tuple[Elision, ...]:
    """Choose the results to replace so that a weight of `excess` is freed, or as much of it as possible.

    The order of choice: results that were returned again later, results already stored, the largest results, the older ones.

    Args:
        messages: The window, in order.
        excess: The weight to free.
        newest_group: Results of this group and of later groups are not replaced.
        handle_for: Makes a handle for a result that has none yet.
        pinned: Groups that are not replaced.

    """
    latest = {
        (message.tool, message.content): index
        for index, message in enumerate(messages)
        if isinstance(message, ToolMessage)
    }
    candidates = [
        (message.content != "" and latest[message.tool, message.content] == index, message.handle is None, -size, index)
        for index, message in enumerate(messages)
        if isinstance(message, ToolMessage) and message.group < newest_group and message.group not in pinned
        if (size := len(message.content.encode(errors="replace"))) > MIN_BYTES
    ]
    chosen: list[Elision] = []
    freed = 0
    for *_, index in sorted(candidates):
        if freed >= excess:
            break
        elision = _elision(index, messages[index], handle_for)
        chosen.append(elision)
        freed += elision.freed
    return tuple(sorted(chosen, key=lambda one: one.index))


def _elision(index: int, message: Message, handle_for: Callable[[ToolMessage], str]) -> Elision:
    assert isinstance(message, ToolMessage)  # noqa: S101  all candidates are ToolMessages
    handle = message.handle or handle_for(message)
    stub = message.model_copy(update={"content": _stub(message, handle), "handle": handle})
    return Elision(index, stub, message, weigh(message.content) - weigh(stub.content))


def _stub(message: ToolMessage, handle: str) -> str:
    head = message.content[:HEAD_CHARS].encode(errors="backslashreplace").decode()
    return (
        f"[{message.tool}'s result of {len(message.content)} characters was moved out of the window. Read it with "
        f'{READ_RESULT.name}(handle="{handle}", offset=0, length={PAGE_CHARS}). It begins:]\n{head}'
    )
