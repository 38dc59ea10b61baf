"""A session in words: its numbers as a card, its memory and messages as headings and texts, all of it safe to print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from midwatch.workers.views.output import count, pluralize, printable, printable_lines

if TYPE_CHECKING:
    from midwatch.orchestration.store.sessions import SessionNumbers
    from midwatch.schemas.memory import Memory
    from midwatch.schemas.message import Message

RESULT_CHARACTERS = 600
"""How much of a tool's result `show` prints; `export` has all of it."""

STYLES = {
    "user": "bold cyan",
    "assistant": "bold green",
    "tool": "bold",
    "note": "bold yellow",
    "memory": "bold magenta",
}
DIM = ("tool", "memory")

Paragraph = tuple[str, str, str]
"""Who says it (a key of STYLES), the heading, the text."""


def numbers_card(numbers: SessionNumbers, most_bytes: int) -> list[tuple[str, str]]:
    """The numbers as names and values. `most_bytes`: of originals that one session may keep."""
    archived = f", {pluralize(numbers.groups_archived, 'group')} archived" if numbers.groups_archived else ""
    tokens = numbers.last_call_tokens
    return [
        ("session", numbers.session_id),
        ("held by job", numbers.active_job or ""),
        ("live", f"{pluralize(numbers.messages, 'message')} in {pluralize(numbers.groups_live, 'group')}{archived}"),
        ("compactions", str(numbers.compactions or "")),
        ("kept whole", pluralize(numbers.results_kept, "result") if numbers.results_kept else ""),
        ("originals", f"{numbers.originals_bytes:,} of {most_bytes:,} bytes" if numbers.originals_bytes else ""),
        ("last call", "" if tokens is None else f"{count(tokens)} tokens ({numbers.last_call_model})"),
        ("in Redis", f"{numbers.redis_bytes:,} bytes"),
    ]


def memory_lines(memory: Memory) -> Iterator[Paragraph]:
    """The memory, as the model reads it."""
    from midwatch.orchestration.context.render import render

    yield "memory", f"memory of groups 1 to {memory.through_group}", printable_lines(render(memory))


def paragraphs(message: Message) -> Iterator[Paragraph]:
    """A message."""
    if message.role == "assistant":
        calls = "\n".join(f"→ {call.name}({call.raw_arguments})" for call in message.tool_calls)
        said = "\n".join(filter(None, (message.text, calls))) or "(nothing)"
        yield "assistant", f"assistant ({printable(message.model)})", printable_lines(said)
    elif message.role == "tool":
        text = message.content
        cut = len(text) - RESULT_CHARACTERS
        shown = text if cut <= 0 else f"{text[:RESULT_CHARACTERS]} … and {cut:,} characters more"
        heading = f"{printable(message.tool)} {'failed' if message.is_error else 'returned'}"
        yield "tool", heading, printable_lines(shown)
    else:
        yield message.role, message.role, printable_lines(message.text)
