"""Provider-neutral conversation: messages, their parts, and the group that is never split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from midwatch.schemas.contract import JsonObject, Record, Version


class Text(Record):
    """Something said."""

    type: Literal["text"] = "text"
    text: str


class ToolCall(Record):
    """A tool call as the model wrote it. `id` is the provider's and is NOT unique: real models repeat ids for different calls."""

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    raw_arguments: str
    """The arguments exactly as they came, so that they go back byte-identical (prompt caches, signatures)."""
    vendor_extra: JsonObject | None = None
    """What must be echoed to the same vendor, e.g. Gemini's thought signature."""


class Opaque(Record):
    """A vendor's own block (thinking, encrypted reasoning) that is replayed verbatim to that vendor and dropped for any other."""

    type: Literal["opaque"] = "opaque"
    provider: str
    raw: JsonObject


Part = Annotated[Text | ToolCall | Opaque, Field(discriminator="type")]


class LogEntry(Record):
    """One entry of a session's log."""

    v: Version | None = None
    """None: version 1."""
    handle: str | None = None
    """Where the whole is kept when the entry holds only a part of it."""


class UserMessage(LogEntry):
    """What a user, or a producer, said: the beginning of a job."""

    role: Literal["user"] = "user"
    group: int
    text: str


class NoteMessage(LogEntry):
    """What the runtime says to the model: a repair, a re-anchoring. Never to be mistaken for the user."""

    role: Literal["note"] = "note"
    group: int
    text: str
    refused: str | None = None
    """Why the answer before it was sent back: a kind, such as `schema`."""


class AssistantMessage(LogEntry):
    """One model turn."""

    role: Literal["assistant"] = "assistant"
    group: int
    parts: tuple[Part, ...]
    provider: str
    model: str
    """The model id that the response named."""

    @property
    def text(self) -> str:
        """All that was said, joined; empty when the turn only called tools."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in the order they were made; a call's place in it is its ordinal."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


class ToolMessage(LogEntry):
    """What a tool call came to. Every call has exactly one, whatever happened."""

    role: Literal["tool"] = "tool"
    group: int
    ordinal: int
    """Place of the call in its assistant turn: results are sent in this order, in whatever order they came."""
    call_id: str
    tool: str
    content: str
    is_error: bool = False
    refused: str | None = None
    """Why the call was not run: a kind, such as `schema` or `limit`. None when it ran."""


Message = Annotated[UserMessage | NoteMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]

MESSAGE: TypeAdapter[UserMessage | NoteMessage | AssistantMessage | ToolMessage] = TypeAdapter(Message)
"""Decodes one stored message; built once, because building it costs more than using it."""
