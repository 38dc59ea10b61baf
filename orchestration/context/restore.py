"""Restore the original of a message that was elided or cut."""

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
"""Matches the note of `cut.head_and_tail`. Inside JSON its quotes are escaped."""


def whole_handle(handle: str) -> str:
    """The handle of a whole model turn with its parts and ids. The handle without the suffix has its text, for the model."""
    return f"{handle}-turn"


def handles_of(message: Message) -> tuple[str, ...]:
    """The handles under which the whole message may be stored. Empty if the message is whole."""
    if isinstance(message, ToolMessage):
        return (message.handle,) if message.handle else ()
    if isinstance(message, AssistantMessage):
        texts = [part.text for part in message.parts if isinstance(part, Text)]
        texts += [call.raw_arguments for call in message.tool_calls]
        return tuple(dict.fromkeys(whole_handle(found[2]) for text in texts for found in _NOTE.finditer(text)))
    return tuple(dict.fromkeys(found[2] for found in _NOTE.finditer(message.text)))


def restore(message: Message, kept: Mapping[str, str]) -> Message:
    """The message before it was last shortened. The same message if its original is not stored."""
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
        if len(whole) == int(note[1]) and message.text.startswith(
            whole[: note.start()]
        ):  # else the note is a quotation
            return message.model_copy(update={"text": whole})
    return message


def decompress_text(body: bytes) -> str:
    """Decompress a stored text."""
    try:
        return zlib.decompressobj().decompress(body).decode(errors="replace")
    except zlib.error:  # an artifact of a tool, in another format
        return body.decode(errors="replace")
