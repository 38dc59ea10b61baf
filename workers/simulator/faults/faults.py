"""`Faults` says which faults happen, how often and when, and decides about each request.

The chance is a hash of (seed, conversation, model turn, attempt), not a sequence of random numbers. So two runs with
the same seed have faults in the same calls, in any order of requests. Attempt n is the n-th request for a turn of a
conversation.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.contract import Contract
from midwatch.workers.simulator.faults.chaos_text import parse_pairs, suggest

Probability = Annotated[float, Field(ge=0, le=1)]


class Fault(StrEnum):
    """Every fault: first the refusals, then faults of the connection, then faults inside the answer."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    PROVIDER_ERROR = "provider_error"
    CONTEXT_OVERFLOW = "context_overflow"
    QUOTA_EXHAUSTED = "quota_exhausted"
    SPEND_CAP = "spend_cap"
    AUTH_ERROR = "auth_error"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    BAD_REQUEST = "bad_request"
    HANG = "hang"
    SLOW = "slow"
    DRIP = "drip"
    RESET = "reset"
    TRUNCATED = "truncated"
    HTML = "html"
    BLOCKED_PAGE = "blocked_page"
    ERROR_IN_200 = "error_in_200"
    CONTENT_NULL = "content_null"
    NO_USAGE = "no_usage"
    ABSURD_USAGE = "absurd_usage"
    STOP_NULL = "stop_null"
    REPEATED_ID = "repeated_id"
    EMPTY_ID = "empty_id"
    MALFORMED_ARGUMENTS = "malformed_arguments"
    INVALID_ARGUMENTS = "invalid_arguments"
    UNKNOWN_TOOL = "unknown_tool"
    CUT_OFF = "cut_off"


REFUSING = frozenset(list(Fault)[: list(Fault).index(Fault.HANG)])
"""Faults that refuse the request. The brain is not called."""

MISREPORTING = frozenset({Fault.NO_USAGE, Fault.ABSURD_USAGE})
"""Faults that hide the real usage of an answer."""

ALTERING = frozenset(list(Fault)[list(Fault).index(Fault.CONTENT_NULL) :])
"""Faults that change the content of the answer."""

OUTAGES = REFUSING | {Fault.HANG, Fault.RESET, Fault.HTML, Fault.BLOCKED_PAGE, Fault.ERROR_IN_200}
"""Faults that can be used as an outage, because no answer reaches the client."""

SPOILING = frozenset({Fault.MALFORMED_ARGUMENTS, Fault.INVALID_ARGUMENTS, Fault.UNKNOWN_TOOL, Fault.CUT_OFF})
"""Faults after which the client requests the same turn again, with the spoiled turn in its history."""


def chance(*words: object) -> float:
    """Return a number in [0, 1) that depends only on the words."""
    digest = hashlib.blake2b("|".join(map(str, words)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class Faults(Contract):
    """The probability of each fault per request, the scripted faults, and their settings. A request has one fault at most."""

    rate_limited: Probability = 0.0
    """429 with Retry-After and with the vendor's message and headers."""
    overloaded: Probability = 0.0
    """529 at Anthropic, 503 at OpenAI."""
    provider_error: Probability = 0.0
    """500: the server has an error."""
    context_overflow: Probability = 0.0
    """400: the prompt is too long, in each vendor's wording."""
    quota_exhausted: Probability = 0.0
    """429: the quota or the vendor's spend limit is used up. Waiting does not help."""
    spend_cap: Probability = 0.0
    """400: the customer's own spend limit is reached. Waiting does not help."""
    auth_error: Probability = 0.0
    """401: the API key is invalid."""
    payload_too_large: Probability = 0.0
    """413: the request body is too large."""
    bad_request: Probability = 0.0
    """400: the request is refused, in the vendor's format and without a telling code."""
    hang: Probability = 0.0
    """The server sends nothing until the client gives up or `hang_s` have passed."""
    slow: Probability = 0.0
    """The answer is sent `slow_ms` later."""
    drip: Probability = 0.0
    """The body is sent one byte every `drip_ms`, so that no read times out."""
    reset: Probability = 0.0
    """The connection is reset before anything is sent."""
    truncated: Probability = 0.0
    """Half of the body is sent, then the connection is closed."""
    html: Probability = 0.0
    """200 with a web page."""
    blocked_page: Probability = 0.0
    """403 with a web page: the challenge of a firewall in front of the vendor. It is no verdict on the key."""
    error_in_200: Probability = 0.0
    """200 with the vendor's error body for an overload, as gateways send it."""
    content_null: Probability = 0.0
    """200 with null as content."""
    no_usage: Probability = 0.0
    """200 without usage. The journal has the real usage."""
    absurd_usage: Probability = 0.0
    """200 with impossible usage: zero, negative, a trillion, or fifty times too much. The journal has the real usage."""
    stop_null: Probability = 0.0
    """200 with null as stop reason. The answer is whole."""
    repeated_id: Probability = 0.0
    """A tool call has the id of an earlier call. Parallel calls have the same id."""
    empty_id: Probability = 0.0
    """Tool calls have an empty id."""
    malformed_arguments: Probability = 0.0
    """Arguments are cut off in the middle. In Anthropic's format, they are `{}` or have the wrong shape."""
    invalid_arguments: Probability = 0.0
    """Arguments are valid JSON, but violate the tool's schema."""
    unknown_tool: Probability = 0.0
    """The model calls a tool that was not offered."""
    cut_off: Probability = 0.0
    """The model runs out of output tokens in the middle of a tool call. The client must not run that call."""

    seed: int = 0
    at_request: dict[Annotated[int, Field(ge=1)], Fault] = Field(default_factory=dict)
    """Number of a model call -> its fault. The first model call that this server receives is 1."""
    at_turn: dict[Annotated[int, Field(ge=1)], tuple[Fault, ...]] = Field(default_factory=dict)
    """Number of a model turn -> the faults of its first attempt, its second attempt and so on, in every conversation."""
    once: bool = True
    """True limits random faults to `max_faults_per_turn` for each turn, so that jobs can end. False sets no limit."""
    max_faults_per_turn: int = Field(default=2, ge=0)
    spoil_positional: bool = False
    """Spoil tool calls of positional brains (script, transcript), too. They then answer the same turn again."""

    outage: Fault | None = None
    """The fault of every request during an outage. The outage begins `outage_after_s` after these faults were set, and
    lasts `outage_s`."""
    outage_s: float = Field(default=0.0, ge=0)
    outage_after_s: float = Field(default=0.0, ge=0)

    retry_after_s: float = Field(default=1.0, ge=0)
    """Retry-After of a simulated 429. The rate limits and an outage send the real wait instead."""
    overloaded_retry_after_s: float | None = Field(default=None, ge=0)
    """Retry-After of a simulated 529 or 503. None sends no Retry-After, which is usual."""
    slow_ms: int = Field(default=2_000, ge=0)
    drip_ms: int = Field(default=50, ge=1)
    hang_s: float = Field(default=600.0, gt=0)
    context_window_tokens: int | None = Field(default=None, gt=0)
    """A larger prompt is refused as a context overflow."""
    requests_per_minute: int | None = Field(default=None, gt=0)
    """Limit of requests. Like each of the following limits, it is a token bucket: an empty bucket gives a 429 with the real
    Retry-After, and the headers report the state."""
    input_tokens_per_minute: int | None = Field(default=None, gt=0)
    """Limit of input tokens, not counting those read from the prompt cache, as Anthropic counts."""
    output_tokens_per_minute: int | None = Field(default=None, gt=0)
    """Limit of written output tokens, as Anthropic counts. One token left admits a request, which may then overdraw."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """Limit of tokens, as OpenAI counts: a request's input tokens or its output limit, whichever is more."""
    burst_s: float = Field(default=60.0, gt=0)
    """Capacity of each bucket, in seconds of its limit."""
    burst: int | None = Field(default=None, gt=0)
    """Capacity of the bucket of requests, in requests."""
    refused_count: bool = False
    """True also counts refused requests against the limit, as OpenAI does."""
    answers_as: str | None = None
    """The model name in replies, if it differs from the requested one. This simulates a silent model update."""

    @model_validator(mode="after")
    def _at_most_one_happens(self) -> Self:
        total = sum(getattr(self, fault) for fault in Fault)
        if total > 1 + 1e-9:
            raise ValueError(f"the sum of all probabilities must not exceed 1, got {total:g}")
        return self

    @model_validator(mode="after")
    def _outage_is_one(self) -> Self:
        if self.outage is not None and self.outage not in OUTAGES:
            raise ValueError(f"outage: expected one of {', '.join(sorted(OUTAGES))}, got {self.outage}")
        if (self.outage is None) != (self.outage_s == 0):
            raise ValueError("set both outage (the fault) and outage_s (its duration), or neither")
        return self

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Parse `rate_limited=0.05,reset@3,hang@turn2,seed=7` or a JSON object. Raises ConfigError if it is invalid.

        `fault@3` is a fault of the third request. `fault@turn2` is a fault of the second turn of every conversation. If
        it is written twice, the second one is for the second attempt at that turn.
        """
        try:
            return cls.model_validate(json.loads(text) if text.lstrip().startswith("{") else parse_pairs(text))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise ConfigError(
                f"chaos: {where or 'faults'}: {problem['msg']}{suggest(where, cls.model_fields)}"
            ) from error
        except ValueError as error:
            raise ConfigError(f"chaos: {error}") from error

    def outage_left_s(self, since_s: float) -> float:
        """Return the remaining seconds of the outage, `since_s` after these faults were set. 0 if there is none."""
        begun_s = since_s - self.outage_after_s
        return max(0.0, self.outage_s - begun_s) if begun_s >= 0 else 0.0

    def find_scripted(self, request: int, turn: int, attempt: int) -> Fault | None:
        """Find the scripted fault of this request, if there is one."""
        of_turn = self.at_turn.get(turn, ())
        return self.at_request.get(request) or (of_turn[attempt - 1] if attempt <= len(of_turn) else None)

    def draw(self, conversation: str, turn: int, attempt: int, faulted: int) -> Fault | None:
        """Draw a random fault for this request. `faulted` is the number of faults that this turn had before."""
        if self.once and faulted >= self.max_faults_per_turn:
            return None
        left = chance(self.seed, conversation, turn, attempt)
        for fault in Fault:
            left -= getattr(self, fault)
            if left < 0:
                return fault
        return None
