"""The last tier: one message that is larger than its room keeps its head and tail, and the rest gets a handle."""

from __future__ import annotations

import json
from dataclasses import dataclass

from midwatch.orchestration.tools.result_pages import PAGE_CHARS, READ_RESULT
from midwatch.schemas.contract import canonical_json
from midwatch.schemas.message import AssistantMessage, Message, Part, Text, ToolCall, ToolMessage

HEAD_SHARE = 0.7
"""Of what stays, the part taken from the beginning; the end often says how it went."""

TRIES = 24
"""Escapes make JSON longer than its text, by up to six times: the room is met by trying, so often at most."""

MIN_CHARS = 40


@dataclass(frozen=True)
class Cut:
    """The message that fits, and the text that the caller keeps under the handle before it takes effect."""

    message: Message
    rest: str | None
    """The whole text; None when nothing was cut, or when the whole lies under the message's own handle already."""


def cut(message: Message, room_bytes: int, handle: str) -> Cut:
    """The message within `room_bytes` of JSON, as near as its fixed parts allow (ids, names, opaque blocks stay whole)."""
    whole = _text(message)
    if size_bytes(message) <= room_bytes:
        return Cut(message, None)
    chars = min(max(len(whole), MIN_CHARS), max(MIN_CHARS, room_bytes))
    shorter = message
    for _ in range(TRIES):
        shorter = _shortened(message, chars, handle)
        came_bytes = size_bytes(shorter)
        if came_bytes <= room_bytes or chars == MIN_CHARS:
            break
        chars = max(MIN_CHARS, min(chars * 9 // 10, chars * room_bytes // came_bytes))
    kept_already = isinstance(message, ToolMessage) and message.handle is not None
    return Cut(shorter, None if kept_already else whole)


def head_and_tail(text: str, chars: int, handle: str, *, alone: bool = True) -> str:
    """The text itself, or `chars` of it around a line that says where the rest is.

    Args:
        text: What may be too long.
        chars: What may stay of it.
        handle: Where the whole is kept.
        alone: It is all that is kept there, so the reader can go on where the head ends.

    """
    if len(text) <= chars:
        return sayable(text)
    head = int(chars * HEAD_SHARE)
    tail = chars - head
    note = (
        f"\n[{len(text) - chars} of {len(text)} characters are left out here. The whole is kept: read on with "
        f'{READ_RESULT.name}(handle="{handle}", offset={head if alone else 0}, length={PAGE_CHARS})]\n'
    )
    return sayable(text[:head]) + note + sayable(text[len(text) - tail :])


def sayable(text: str) -> str:
    """Halves of surrogate pairs escaped: nothing else could encode them."""
    return text.encode(errors="backslashreplace").decode()


def _text(message: Message) -> str:
    if isinstance(message, ToolMessage):
        return message.content
    if isinstance(message, AssistantMessage):
        return "\n".join([message.text, *(call.raw_arguments for call in message.tool_calls)]).strip("\n")
    return message.text


def size_bytes(message: Message) -> int:
    """Of the message's JSON."""
    text = json.dumps(message.model_dump(), ensure_ascii=False, separators=(",", ":"))
    return len(text.encode(errors="backslashreplace"))


def _shortened(message: Message, chars: int, handle: str) -> Message:
    if isinstance(message, ToolMessage):
        content = head_and_tail(message.content, chars, handle)
        return message.model_copy(update={"content": content, "handle": message.handle or handle})
    if not isinstance(message, AssistantMessage):
        return message.model_copy(update={"text": head_and_tail(message.text, chars, handle)})
    spoken = [part for part in message.parts if isinstance(part, (Text, ToolCall))]
    each = max(MIN_CHARS, chars // max(1, len(spoken)))
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, Text):
            parts.append(part.model_copy(update={"text": head_and_tail(part.text, each, handle, alone=False)}))
        elif isinstance(part, ToolCall) and len(part.raw_arguments) > each:
            parts.append(part.model_copy(update={"raw_arguments": _arguments(part.raw_arguments, each, handle)}))
        else:
            parts.append(part)
    return message.model_copy(update={"parts": tuple(parts)})


def _arguments(raw: str, chars: int, handle: str) -> str:
    """Still a JSON object, since the vendor decodes it: long strings in it are cut, or, failing that, all of it."""
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
            return sayable(text)
    return canonical_json({"cut": head_and_tail(raw, chars, handle, alone=False)})
