"""Tier one: old, bulky tool results leave the window and stay within reach, behind a handle that `read_result` pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from midwatch.orchestration.tokens.weight import weigh
from midwatch.orchestration.tools.result_pages import PAGE_CHARS, READ_RESULT
from midwatch.schemas.message import Message, ToolMessage

MIN_BYTES = 2_000
"""A smaller result is not worth a stub: what it costs to read it again would be more."""

HEAD_CHARS = 300


@dataclass(frozen=True)
class Elision:
    """One replacement. Before it takes effect, the caller keeps `original` under the handle and absorbs its facts."""

    index: int
    """Place of the message in the list that was given."""
    message: ToolMessage
    """The stub that stands in its place."""
    original: ToolMessage
    freed: int
    """Weight."""

    @property
    def kept_already(self) -> bool:
        """The whole result lies under its handle since it was returned: nothing to store."""
        return self.original.handle is not None


def elide(
    messages: Sequence[Message],
    excess: int,
    *,
    newest_group: int,
    handle_for: Callable[[ToolMessage], str],
    pinned: Set[int] = frozenset(),
) -> tuple[Elision, ...]:
    """What to replace so that a weight of `excess` is freed, or as much of it as there is to free; in the order of the messages.

    Cheapest first: results that were returned again later, then those kept whole already, then the largest, the older first.

    Args:
        messages: The window, in order.
        excess: Weight that has to go.
        newest_group: Results of this group and of later ones stay as they are.
        handle_for: Names the handle of a result that has none yet.
        pinned: Groups that stay as they are.

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
    assert isinstance(message, ToolMessage)  # noqa: S101  as the candidates are
    handle = message.handle or handle_for(message)
    stub = message.model_copy(update={"content": _stub(message, handle), "handle": handle})
    return Elision(index, stub, message, weigh(message.content) - weigh(stub.content))


def _stub(message: ToolMessage, handle: str) -> str:
    head = message.content[:HEAD_CHARS].encode(errors="backslashreplace").decode()
    return (
        f"[{message.tool}'s result of {len(message.content)} characters was moved out of the window. Read it with "
        f'{READ_RESULT.name}(handle="{handle}", offset=0, length={PAGE_CHARS}). It begins:]\n{head}'
    )
