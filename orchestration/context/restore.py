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
"""The note of `cut.head_and_tail`. In messages of releases before 0.2, which have no `handle`, only the note names the handle."""


def whole_handle(handle: str) -> str:
    """The handle of a whole model turn, with its parts and ids. Under the plain handle, the model can read only its text."""
    return f"{handle}-turn"


def handles_of(message: Message) -> tuple[str, ...]:
    """The handles under which the whole message may be stored. Empty if the message is whole."""
    if isinstance(message, ToolMessage):
        return (message.handle,) if message.handle else ()
    handles = [message.handle] if message.handle else [note[2] for note in _notes_in(message)]
    if isinstance(message, AssistantMessage):
        handles = [whole_handle(handle) for handle in handles]
    return tuple(dict.fromkeys(handles))


def _notes_in(message: Message) -> list[re.Match[str]]:
    if isinstance(message, AssistantMessage):
        texts = [part.text for part in message.parts if isinstance(part, Text)]
        texts += [call.raw_arguments for call in message.tool_calls]
    else:
        texts = [message.content if isinstance(message, ToolMessage) else message.text]
    return [found for text in texts for found in _NOTE.finditer(text)]


def restore(message: Message, kept: Mapping[str, str]) -> Message:
    """The message before it was last shortened. The same message if its original is not stored."""
    for handle in handles_of(message):
        whole = kept.get(handle)
        if whole is None:
            continue
        if isinstance(message, ToolMessage):
            return message.model_copy(update={"content": whole, "handle": None})
        if isinstance(message, AssistantMessage):
            original = MESSAGE.validate_json(whole)
            if message.handle or _is_cut_from(message, original):
                return original
        elif message.handle or _begins_like(message.text, whole, handle):
            return message.model_copy(update={"text": whole, "handle": None})
    return message


def _begins_like(text: str, whole: str, handle: str) -> bool:
    """Is `text` really a cut form of the whole? If not, its note about a cut is only a quotation."""
    note = next(found for found in _NOTE.finditer(text) if found[2] == handle)
    head, (_, _, tail) = text[: note.start()], text[note.end() :].partition(")]\n")
    is_cut = bool(head and tail) and len(whole) == int(note[1])
    return is_cut and whole.startswith(head) and whole.endswith(tail)


def _is_cut_from(message: AssistantMessage, original: Message) -> bool:
    """Is this model turn a cut form of the original? It must have the same calls, and the beginning of its text."""
    if not isinstance(original, AssistantMessage):
        return False
    calls = [(call.id, call.name) for call in message.tool_calls]
    note = _NOTE.search(message.text)
    head = message.text[: note.start()] if note else message.text
    return calls == [(call.id, call.name) for call in original.tool_calls] and original.text.startswith(head)


def decompress_text(body: bytes) -> str:
    """Decompress a stored text."""
    try:
        return zlib.decompressobj().decompress(body).decode(errors="replace")
    except zlib.error:  # an artifact of a tool, in another format
        return body.decode(errors="replace")
