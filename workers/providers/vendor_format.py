"""`VendorFormat`: how a vendor's API wants a request written, and how its reply is parsed. No I/O happens here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import Part
from midwatch.schemas.model import ModelRequest, Stop, Usage


@dataclass(frozen=True)
class ParsedReply:
    """A reply that was parsed and validated. The data from the response headers is added later."""

    parts: tuple[Part, ...]
    stop: Stop
    raw_stop: str
    usage: Usage
    model: str | None
    """None if the reply names no model."""


class VendorFormat(Protocol):
    """The request and reply format of one API. Equal requests give equal bodies, with their keys in the same order."""

    @property
    def path(self) -> str:
        """The path of a call, relative to the base URL."""
        ...

    @property
    def count_path(self) -> str | None:
        """The path of a token count, relative to the base URL. None if the provider has no counter."""
        ...

    def write_request(self, request: ModelRequest) -> JsonObject:
        """Write the body of a call. Raises Unsendable."""
        ...

    def write_count_request(self, request: ModelRequest) -> JsonObject:
        """Write the body of a token count. Raises Unsendable."""
        ...

    def parse_reply(self, reply: JsonObject, request: ModelRequest) -> ParsedReply:
        """Validate the reply and return it.

        Raises:
            BadReply: the reply can't be used.

        """
        ...
