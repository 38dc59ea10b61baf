"""What differs from provider to provider, without any I/O: how a request is written, how a reply is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import Part
from midwatch.schemas.model import ModelRequest, Stop, Usage


@dataclass(frozen=True)
class Answer:
    """A reply as its dialect read it, before the headers are added."""

    parts: tuple[Part, ...]
    stop: Stop
    raw_stop: str
    usage: Usage
    model: str | None
    """None when the reply names no model."""


class Dialect(Protocol):
    """One wire format. Pure: the same request gives the same object, key for key."""

    @property
    def path(self) -> str:
        """Where a request goes, below the base URL."""
        ...

    @property
    def count_path(self) -> str | None:
        """Where it is counted; None when the provider has no counter."""
        ...

    def request(self, request: ModelRequest) -> JsonObject:
        """The body of a call. Raises Unsendable."""
        ...

    def count_request(self, request: ModelRequest) -> JsonObject:
        """The body of a count. Raises Unsendable."""
        ...

    def answer(self, reply: JsonObject, request: ModelRequest) -> Answer:
        """The reply, validated. Raises BadReply when it can't be used, ErrorReply when it is an error."""
        ...
