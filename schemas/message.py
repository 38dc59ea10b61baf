"""The conversation in a form that no provider dictates: messages and their parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from midwatch.schemas.contract import JsonObject, Record, Version


class Text(Record):
    """A piece of text."""

    type: Literal["text"] = "text"
    text: str


class ToolCall(Record):
    """A tool call as the model wrote it. `id` is the provider's and is NOT unique: real models repeat ids for different calls."""

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    raw_arguments: str
    """The arguments exactly as received. They must be sent back byte for byte (prompt caches, signatures)."""
    vendor_extra: JsonObject | None = None
    """Data that must be sent back to the model that made it, e.g. Gemini's thought signature."""


class Opaque(Record):
    """A block of one vendor (thinking, encrypted reasoning). Only the model and server that made it get it back."""

    type: Literal["opaque"] = "opaque"
    provider: str
    """Empty for thinking that a server left in a text. It is kept for people, and is sent to no model."""
    raw: JsonObject


Part = Annotated[Text | ToolCall | Opaque, Field(discriminator="type")]


class LogEntry(Record):
    """One entry of a session's log."""

    v: Version | None = None
    """The version of the entry. None means 1."""
    handle: str | None = None
    """The handle of the full content, if the entry holds only a part of it."""


class UserMessage(LogEntry):
    """The input of a job, from a user or a producer."""

    role: Literal["user"] = "user"
    group: int
    text: str


class NoteMessage(LogEntry):
    """A message of Midwatch to the model, such as a correction. It must not be mistaken for the user's."""

    role: Literal["note"] = "note"
    group: int
    text: str
    refused: str | None = None
    """Why the answer before this note was refused: a kind, such as `schema`."""


class AssistantMessage(LogEntry):
    """One model turn."""

    role: Literal["assistant"] = "assistant"
    group: int
    parts: tuple[Part, ...]
    provider: str
    model: str
    """The model id that the response named."""
    requested: str | None = None
    """The model id that was requested. None in a message of an earlier release."""
    server: str | None = None
    """The server that answered: host and path of its base URL. Opaque parts are sent back to no other server."""

    @property
    def text(self) -> str:
        """The text parts, joined. Empty if the turn only called tools."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in their order. The index of a call is its ordinal."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


class ToolMessage(LogEntry):
    """The result of a tool call. Every call has exactly one, even if it failed or was refused."""

    role: Literal["tool"] = "tool"
    group: int
    ordinal: int
    """Index of the call in its turn. The model gets the results in this order, not in the order in which they arrived."""
    call_id: str
    tool: str
    content: str
    is_error: bool = False
    refused: str | None = None
    """Why the call was not run: a kind, such as `schema` or `limit`. None when it ran."""


Message = Annotated[UserMessage | NoteMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]

MESSAGE: TypeAdapter[UserMessage | NoteMessage | AssistantMessage | ToolMessage] = TypeAdapter(Message)
"""Decodes one stored message. It is built once, because building it is slow."""
