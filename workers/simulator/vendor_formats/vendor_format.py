"""What a wire is: one vendor's request becomes a conversation, a reply or a refusal becomes that vendor's JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop, Usage
from midwatch.workers.simulator.brains.brain import Call, Conversation


class BadRequest(Exception):
    """Raised when a request is one that the vendor would refuse with 400. Says what was expected; quotes no content."""


class RefusalKind(StrEnum):
    """Every way the server says no; each wire words it as its vendor does."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    PROVIDER_ERROR = "provider_error"
    CONTEXT_OVERFLOW = "context_overflow"
    QUOTA_EXHAUSTED = "quota_exhausted"
    SPEND_CAP = "spend_cap"
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
    of: str = "requests"
    """What the limit counts: requests, input-tokens, output-tokens, tokens."""
    used: int | None = None
    """How much of it; None: all."""
    needed: int = 1
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class RateState:
    """What the rate-limit headers tell of one limit."""

    limit: int
    remaining: int
    reset_s: float
    """Until the bucket is full again."""
    of: str = "requests"


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
    """One vendor's endpoint: one file here, and its line in `midwatch.workers.simulator.vendor_formats`."""

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

    def headers(
        self, request_id: str, rate: RateState | None, now: datetime, tokens: Iterable[RateState] = ()
    ) -> dict[str, str]:
        """The vendor's headers on every answer: the request id, and the state of the limits of requests and of tokens."""
        ...
