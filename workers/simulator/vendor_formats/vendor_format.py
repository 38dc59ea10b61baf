"""`SimulatedFormat`: how a vendor's server parses requests and writes replies and refusals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop, Usage
from midwatch.workers.simulator.brains.brain import Conversation, SimulatedCall


class BadRequest(Exception):
    """Raised for a request that the vendor would refuse with 400. It says what was expected, and quotes no content."""


class RefusalKind(StrEnum):
    """Every kind of refusal. Each format has its vendor's message for it."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    PROVIDER_ERROR = "provider_error"
    CONTEXT_OVERFLOW = "context_overflow"
    QUOTA_EXHAUSTED = "quota_exhausted"
    SPEND_CAP = "spend_cap"
    AUTH_ERROR = "auth_error"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    BAD_REQUEST = "bad_request"
    INVALID_REQUEST = "invalid_request"
    NOT_FOUND = "not_found"
    UNEXPECTED = "unexpected"
    """The brain had no answer. A header asks both SDKs not to retry, because a retry would have no answer either."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal, independent of the vendor."""

    kind: RefusalKind
    detail: str = ""
    """The message for invalid_request, not_found and unexpected."""
    model: str = ""
    tokens: int = 0
    limit: int = 0
    unit: str = "requests"
    """What the limit counts: requests, input-tokens, output-tokens, tokens."""
    used: int | None = None
    """How much of the limit is used. None means all of it."""
    needed: int = 1
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class RateState:
    """The state of one limit, as the rate-limit headers report it."""

    limit: int
    remaining: int
    reset_s: float
    """Seconds until the bucket is full again."""
    unit: str = "requests"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A parsed request."""

    conversation: Conversation
    breakpoints: frozenset[int] | None = None
    """The cache breakpoints that the client set: 0 is after system and tools, n is after the n-th turn. None means that the
    vendor caches automatically."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, independent of the vendor. A fault sets fields to None to leave them out."""

    id: str
    """Part of every id in the answer."""
    model: str
    text: str
    calls: tuple[SimulatedCall, ...]
    stop: Stop | None
    usage: Usage | None
    has_content: bool = True


class SimulatedFormat(Protocol):
    """One vendor's format. Each has its own file here, and a line in `midwatch.workers.simulator.vendor_formats`."""

    name: str
    call_prefix: str
    """Prefix of this vendor's tool call ids."""

    def parse_request(self, body: JsonObject) -> Prompt:
        """Parse a request. Raises BadRequest if the vendor would not accept it."""
        ...

    def write_reply(self, reply: Reply, created_s: int) -> JsonObject:
        """Write the body of a 200."""
        ...

    def write_refusal(self, refusal: Refusal, request_id: str) -> tuple[int, JsonObject]:
        """Write the status and body of a refusal."""
        ...

    def write_count(self, input_tokens: int) -> JsonObject:
        """Write the body of a token count."""
        ...

    def write_headers(
        self, request_id: str, rate: RateState | None, now: datetime, tokens: Iterable[RateState] = ()
    ) -> dict[str, str]:
        """Write the headers of every answer: the request id, and the state of the limits of requests and tokens."""
        ...
