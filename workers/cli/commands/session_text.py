"""A session as text: its numbers as a card, its memory and its messages as headings and texts. All are safe to print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from midwatch.workers.views.output import count, pluralize, printable, printable_lines

if TYPE_CHECKING:
    from midwatch.orchestration.store.sessions import SessionNumbers
    from midwatch.schemas.memory import Memory
    from midwatch.schemas.message import Message

RESULT_CHARACTERS = 600
"""Most characters of a tool's result that `show` prints. `export` prints all of it."""

STYLES = {
    "user": "bold cyan",
    "assistant": "bold green",
    "tool": "bold",
    "note": "bold yellow",
    "memory": "bold magenta",
}
DIM = ("tool", "memory")

Paragraph = tuple[str, str, str]
"""Role (a key of STYLES), heading, text."""


def numbers_card(numbers: SessionNumbers, most_bytes: int) -> list[tuple[str, str]]:
    """Return the numbers as names and values. `most_bytes` is the limit of originals that one session keeps."""
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


def format_memory(memory: Memory) -> Paragraph:
    """Format the memory as the model reads it."""
    from midwatch.orchestration.context.render import render

    return "memory", f"memory of groups 1 to {memory.through_group}", printable_lines(render(memory))


def format_message(message: Message) -> Paragraph:
    """Format a message."""
    if message.role == "assistant":
        calls = "\n".join(f"→ {call.name}({call.raw_arguments})" for call in message.tool_calls)
        text = "\n".join(filter(None, (message.text, calls))) or "(nothing)"
        return "assistant", f"assistant ({printable(message.model)})", printable_lines(text)
    if message.role == "tool":
        text = message.content
        cut = len(text) - RESULT_CHARACTERS
        shown = text if cut <= 0 else f"{text[:RESULT_CHARACTERS]} … and {cut:,} characters more"
        heading = f"{printable(message.tool)} {'failed' if message.is_error else 'returned'}"
        return "tool", heading, printable_lines(shown)
    return message.role, message.role, printable_lines(message.text)
