"""The way back from a message that was elided or cut to the message as it was said."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from midwatch.orchestration.tools.result_pages import READ_RESULT
from midwatch.schemas.message import MESSAGE, AssistantMessage, Message, Text, ToolMessage

_NOTE = re.compile(
    r"\n?\[\d+ of (\d+) characters are left out here\. The whole is kept: read on with "
    rf'{READ_RESULT.name}\(handle=\\*"([\w-]+?)\\*"'
)
"""What `cut.head_and_tail` leaves; within JSON its quotes are escaped."""


def whole_handle(handle: str) -> str:
    """Where a cut model turn lies with its parts and ids; under the handle itself is its text, for the model to read."""
    return f"{handle}-turn"


def handles_of(message: Message) -> tuple[str, ...]:
    """Where the whole of a message may lie; none when it is whole."""
    if isinstance(message, ToolMessage):
        return (message.handle,) if message.handle else ()
    if isinstance(message, AssistantMessage):
        texts = [part.text for part in message.parts if isinstance(part, Text)]
        texts += [call.raw_arguments for call in message.tool_calls]
        return tuple(dict.fromkeys(whole_handle(found[2]) for text in texts for found in _NOTE.finditer(text)))
    return tuple(dict.fromkeys(found[2] for found in _NOTE.finditer(message.text)))


def restore(message: Message, kept: Mapping[str, str]) -> Message:
    """The message as it was before it was shortened last; itself when nothing of it is kept."""
    if isinstance(message, ToolMessage):
        whole = kept.get(message.handle or "")
        return message if whole is None else message.model_copy(update={"content": whole, "handle": None})
    for handle in handles_of(message):
        whole = kept.get(handle)
        if whole is None:
            continue
        if isinstance(message, AssistantMessage):
            return MESSAGE.validate_json(whole)
        note = next(found for found in _NOTE.finditer(message.text) if found[2] == handle)
        if len(whole) == int(note[1]) and message.text.startswith(whole[: note.start()]):  # not a quoted note
            return message.model_copy(update={"text": whole})
    return message


def decompress_text(body: bytes) -> str:
    """A kept text, whole."""
    try:
        return zlib.decompressobj().decompress(body).decode(errors="replace")
    except zlib.error:  # kept by a tool of its own accord
        return body.decode(errors="replace")
