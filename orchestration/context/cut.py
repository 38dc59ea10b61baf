"""Cut one message that is too large: keep its head and tail, and store the whole under a handle."""

from __future__ import annotations

import json
from dataclasses import dataclass

from midwatch.orchestration.tools.result_pages import PAGE_CHARS, READ_RESULT
from midwatch.schemas.contract import canonical_json
from midwatch.schemas.message import AssistantMessage, Message, Part, Text, ToolCall, ToolMessage

HEAD_SHARE = 0.7
"""Share of the kept text that is its beginning. The rest is its end, which often shows the outcome."""

TRIES = 24
"""Most attempts to reach the size. JSON is up to six times longer than its text, so the length is found by trying."""

MIN_CHARS = 40


@dataclass(frozen=True)
class Cut:
    """A shortened message, and the text that the caller must store under the handle before it uses the message."""

    message: Message
    rest: str | None
    """The whole text. None if nothing was cut, or if the whole is already stored under the message's own handle."""


def cut(message: Message, room_bytes: int, handle: str) -> Cut:
    """Shorten a message to `room_bytes` of JSON. Fixed parts (ids, names, opaque blocks) stay whole, so it may be larger."""
    whole = _text(message)
    if size_bytes(message) <= room_bytes:
        return Cut(message, None)
    chars = min(max(len(whole), MIN_CHARS), max(MIN_CHARS, room_bytes))
    shorter = message
    for _ in range(TRIES):
        shorter = _shorten(message, chars, handle)
        came_bytes = size_bytes(shorter)
        if came_bytes <= room_bytes or chars == MIN_CHARS:
            break
        chars = max(MIN_CHARS, min(chars * 9 // 10, chars * room_bytes // came_bytes))
    kept_already = isinstance(message, ToolMessage) and message.handle is not None
    return Cut(shorter, None if kept_already else whole)


def head_and_tail(text: str, chars: int, handle: str, *, alone: bool = True) -> str:
    """Shorten a text to `chars` characters, around a line that says where the rest is. A short text stays as it is.

    Args:
        text: The text.
        chars: How many characters of it may stay.
        handle: The handle of the whole text.
        alone: True if the handle holds only this text, so that the model can read on where the head ends.

    """
    if len(text) <= chars:
        return escape_surrogates(text)
    head = int(chars * HEAD_SHARE)
    tail = chars - head
    note = (
        f"\n[{len(text) - chars} of {len(text)} characters are left out here. The whole is kept: read on with "
        f'{READ_RESULT.name}(handle="{handle}", offset={head if alone else 0}, length={PAGE_CHARS})]\n'
    )
    return escape_surrogates(text[:head]) + note + escape_surrogates(text[len(text) - tail :])


def escape_surrogates(text: str) -> str:
    """Escape lone surrogates, since they can't be encoded."""
    return text.encode(errors="backslashreplace").decode()


def _text(message: Message) -> str:
    if isinstance(message, ToolMessage):
        return message.content
    if isinstance(message, AssistantMessage):
        return "\n".join([message.text, *(call.raw_arguments for call in message.tool_calls)]).strip("\n")
    return message.text


def size_bytes(message: Message) -> int:
    """Size of the message as JSON."""
    text = json.dumps(message.model_dump(), ensure_ascii=False, separators=(",", ":"))
    return len(text.encode(errors="backslashreplace"))


def _shorten(message: Message, chars: int, handle: str) -> Message:
    if isinstance(message, ToolMessage):
        content = head_and_tail(message.content, chars, handle)
        return message.model_copy(update={"content": content, "handle": message.handle or handle})
    if not isinstance(message, AssistantMessage):
        return message.model_copy(update={"text": head_and_tail(message.text, chars, handle), "handle": handle})
    spoken = [part for part in message.parts if isinstance(part, (Text, ToolCall))]
    each = max(MIN_CHARS, chars // max(1, len(spoken)))
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, Text):
            parts.append(part.model_copy(update={"text": head_and_tail(part.text, each, handle, alone=False)}))
        elif isinstance(part, ToolCall) and len(part.raw_arguments) > each:
            parts.append(
                part.model_copy(update={"raw_arguments": _shorten_arguments(part.raw_arguments, each, handle)})
            )
        else:
            parts.append(part)
    return message.model_copy(update={"parts": tuple(parts), "handle": handle})


def _shorten_arguments(raw: str, chars: int, handle: str) -> str:
    """Shorten arguments to another JSON object, since the vendor decodes it: cut the long strings, or else the whole text."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        longest = max(MIN_CHARS, chars // max(1, len(value)))
        short = {
            key: head_and_tail(one, longest, handle, alone=False) if isinstance(one, str) else one
            for key, one in value.items()
        }
        try:
            text = canonical_json(short)
        except (ValueError, RecursionError):
            text = raw
        if len(text) <= max(chars, len(value) * (MIN_CHARS + 300)):
            return escape_surrogates(text)
    return canonical_json({"cut": head_and_tail(raw, chars, handle, alone=False)})
