"""What a wire is: one vendor's request becomes a conversation, a reply or a refusal becomes that vendor's JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from schemas.contract import JsonObject
from schemas.model import Stop, Usage
from workers.simulator.brain import Call, Conversation, Turn


REMINDER = re.compile(r"(?:\A|\n\n)(<reminder>.*?</reminder>)(?=\n\n|\Z)", re.DOTALL)


class BadRequest(Exception):
    """Raised when a request is one that the vendor would refuse with 400. Says what was expected; quotes no content."""


class RefusalKind(StrEnum):
    """Every way the server says no; each wire words it as its vendor does."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    PROVIDER_ERROR = "provider_error"
    CONTEXT_OVERFLOW = "context_overflow"
    QUOTA_EXHAUSTED = "quota_exhausted"
    AUTH_ERROR = "auth_error"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    INVALID_REQUEST = "invalid_request"
    NOT_FOUND = "not_found"
    UNEXPECTED = "unexpected"
    """The brain had no answer. Both SDKs are told not to retry: it would be unexpected again."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal, before a vendor's words."""

    kind: RefusalKind
    detail: str = ""
    """For the kinds that explain themselves: invalid_request, not_found, unexpected."""
    model: str = ""
    tokens: int = 0
    limit: int = 0
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class RateState:
    """What the rate-limit headers tell."""

    limit: int
    remaining: int
    reset_s: float
    """Until the bucket is full again."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request that was understood."""

    conversation: Conversation
    breakpoints: frozenset[int] | None = None
    """Where the client asked for the prefix to be cached: 0 is system and tools, n is the n-th turn. None: the vendor
    caches without being asked."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, before a vendor's shape. What is None is left out on purpose: a fault."""

    id: str
    """Seed of every id in the answer."""
    model: str
    text: str
    calls: tuple[Call, ...]
    stop: Stop | None
    usage: Usage | None
    has_content: bool = True


class Wire(Protocol):
    """One vendor's endpoint: one file here, and its line in `workers.simulator.wires`."""

    name: str
    call_prefix: str
    """How this vendor's tool call ids begin."""

    def read(self, body: JsonObject) -> Prompt:
        """Understand a request; raises BadRequest for what the vendor would not accept."""
        ...

    def reply(self, reply: Reply, created_s: int) -> JsonObject:
        """The body of a 200."""
        ...

    def refuse(self, refusal: Refusal, request_id: str) -> tuple[int, JsonObject]:
        """Status and body of a refusal."""
        ...

    def count(self, input_tokens: int) -> JsonObject:
        """The body of a token count."""
        ...

    def headers(self, request_id: str, rate: RateState | None, now: datetime) -> dict[str, str]:
        """The vendor's headers on every answer: the request id and, when there is a limit, its state."""
        ...


def objects(value: object, where: str) -> Iterator[JsonObject]:
    """Each entry of a list of objects; raises BadRequest for anything else."""
    if not isinstance(value, list):
        raise BadRequest(f"{where}: expected a list, got {type(value).__name__}")
    for number, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise BadRequest(f"{where}.{number}: expected an object, got {type(entry).__name__}")
        yield entry


def text_of(content: object, where: str) -> str:
    """All text of a content field: a string, null, or a list of parts; what is no text becomes `[its type]`."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = objects(content, where)
    return "".join(part["text"] if isinstance(part.get("text"), str) else f"[{part.get('type')}]" for part in parts)


def heard(text: str) -> list[Turn]:
    """What one user text holds: what the user said, and apart from it any `<reminder>` paragraph, which is a note.

    Where a vendor or a compatible server takes no system message in mid-conversation, clients mark the runtime's words so.
    """
    turns = []
    for number, piece in enumerate(REMINDER.split(text)):
        if number % 2:
            turns.append(Turn("note", piece))
        elif piece.strip("\n") or len(text) == len(piece):
            turns.append(Turn("user", piece.removeprefix("\n\n")))
    return turns


def refuse_streaming(body: JsonObject) -> None:
    """Say plainly that there is no streaming here, instead of answering a stream with something else."""
    if body.get("stream"):
        raise BadRequest("stream: this model server answers whole replies only; leave `stream` out, or set it to false")


def dump(value: Any) -> str:
    """JSON as vendors send it: compact, in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read(wire: Wire, body: bytes) -> Prompt:
    """The request in these bytes; raises BadRequest when it is not JSON, or not of the vendor's shape."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"We could not parse the JSON body of your request ({type(error).__name__}).") from None
    if not isinstance(value, dict):
        raise BadRequest(f"expected a JSON object, got {type(value).__name__}")
    try:
        return wire.read(value)
    except (TypeError, AttributeError, KeyError) as error:
        raise BadRequest(f"the request has not the shape of {wire.name} ({type(error).__name__}: {error})") from error


def encoded(body: JsonObject) -> bytes:
    """JSON bytes; text that is no Unicode (half a surrogate pair) travels escaped."""
    try:
        return dump(body).encode()
    except UnicodeEncodeError:
        return json.dumps(body).encode()
