"""What may go wrong, how often, and when: `Faults`, and the decision for one request.

Chance is a hash of (seed, conversation, model turn, attempt), never a sequence of draws: two runs with the same seed
fault the same calls, however their requests interleave. Attempt n is the n-th request for a turn of a conversation.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.contract import Contract, JsonObject

Probability = Annotated[float, Field(ge=0, le=1)]


class Fault(StrEnum):
    """Everything that may go wrong. Refusals, then what happens on the way, then what is odd about an answer."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    PROVIDER_ERROR = "provider_error"
    CONTEXT_OVERFLOW = "context_overflow"
    QUOTA_EXHAUSTED = "quota_exhausted"
    SPEND_CAP = "spend_cap"
    AUTH_ERROR = "auth_error"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    HANG = "hang"
    SLOW = "slow"
    DRIP = "drip"
    RESET = "reset"
    TRUNCATED = "truncated"
    HTML = "html"
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
"""Faults that are a refusal: no answer is asked for."""

MISREPORTING = frozenset({Fault.NO_USAGE, Fault.ABSURD_USAGE})
"""Faults after which an answer does not say what it cost."""

ALTERING = frozenset(list(Fault)[list(Fault).index(Fault.CONTENT_NULL) :])
"""Faults that change the answer; the others happen on its way."""

OUTAGES = REFUSING | {Fault.HANG, Fault.RESET, Fault.HTML}
"""Faults that may be all there is for a time: no answer of the model comes through."""

SPOILING = frozenset({Fault.MALFORMED_ARGUMENTS, Fault.INVALID_ARGUMENTS, Fault.UNKNOWN_TOOL, Fault.CUT_OFF})
"""Faults after which the model has to be asked for the same turn again, with one more turn in the history."""


def chance(*words: object) -> float:
    """A number in [0, 1) that depends on nothing but the words."""
    digest = hashlib.blake2b("|".join(map(str, words)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class Faults(Contract):
    """Probability per request of each fault (at most one happens), scripted faults, and their settings."""

    rate_limited: Probability = 0.0
    """429 with Retry-After, in the vendor's words and headers."""
    overloaded: Probability = 0.0
    """529 at Anthropic, 503 at OpenAI."""
    provider_error: Probability = 0.0
    """500."""
    context_overflow: Probability = 0.0
    """400: the prompt is too long, in each vendor's wording."""
    quota_exhausted: Probability = 0.0
    """429 that no waiting cures: spend limit reached, quota used up."""
    spend_cap: Probability = 0.0
    """400 that no waiting cures: the limit that the customer set himself is reached."""
    auth_error: Probability = 0.0
    """401."""
    payload_too_large: Probability = 0.0
    """413."""
    hang: Probability = 0.0
    """Nothing comes, until the client gives up or `hang_s` have passed."""
    slow: Probability = 0.0
    """The answer comes `slow_ms` later."""
    drip: Probability = 0.0
    """The body comes one byte every `drip_ms`: a read timeout never fires."""
    reset: Probability = 0.0
    """The connection is reset before anything is sent."""
    truncated: Probability = 0.0
    """Half of the body comes, then the connection closes."""
    html: Probability = 0.0
    """200 with a web page."""
    content_null: Probability = 0.0
    """200 whose content is null."""
    no_usage: Probability = 0.0
    """200 without usage. The journal has it."""
    absurd_usage: Probability = 0.0
    """200 whose usage can't be true: nothing, below zero, a trillion, fifty times what it was. The journal has the truth."""
    stop_null: Probability = 0.0
    """200 whose stop reason is null."""
    repeated_id: Probability = 0.0
    """A tool call with the id of another call; parallel calls share one."""
    empty_id: Probability = 0.0
    """Tool calls whose id is the empty string."""
    malformed_arguments: Probability = 0.0
    """Arguments cut off in the middle; at Anthropic, `{}` or a value of the wrong shape."""
    invalid_arguments: Probability = 0.0
    """Well-formed arguments that violate the tool's schema."""
    unknown_tool: Probability = 0.0
    """A call to a tool that was not offered."""
    cut_off: Probability = 0.0
    """The model ran out of output tokens in the middle of a tool call, which must not run."""

    seed: int = 0
    at_request: dict[Annotated[int, Field(ge=1)], Fault] = Field(default_factory=dict)
    """Fault of the n-th model call that this server sees, whatever it is; the first is 1."""
    at_turn: dict[Annotated[int, Field(ge=1)], tuple[Fault, ...]] = Field(default_factory=dict)
    """Faults of model turn n of every conversation: of its first attempt, its second, and so on."""
    once: bool = True
    """Chance faults a turn at most `max_faults_per_turn` times, so that jobs come to an end. False: without bound."""
    max_faults_per_turn: int = Field(default=2, ge=0)
    spoil_positional: bool = False
    """Spoil tool calls also where answers go by position (script, transcript), which then answer the turn again."""

    outage: Fault | None = None
    """What becomes of every request for a time, from `outage_after_s` after these faults were set, for `outage_s`."""
    outage_s: float = Field(default=0.0, ge=0)
    outage_after_s: float = Field(default=0.0, ge=0)

    retry_after_s: float = Field(default=1.0, ge=0)
    """Of a 429 on demand. That of the rate limit and of an outage is the true one."""
    overloaded_retry_after_s: float | None = Field(default=None, ge=0)
    """Of a 529 or 503 on demand; None: it names no wait, as is usual."""
    slow_ms: int = Field(default=2_000, ge=0)
    drip_ms: int = Field(default=50, ge=1)
    hang_s: float = Field(default=600.0, gt=0)
    context_window_tokens: int | None = Field(default=None, gt=0)
    """Larger prompts are refused as an overflow."""
    requests_per_minute: int | None = Field(default=None, gt=0)
    """A bucket, as each of these limits: beyond it, 429 with the true Retry-After, and headers that tell its state."""
    input_tokens_per_minute: int | None = Field(default=None, gt=0)
    """Without those read from the prompt cache, as Anthropic counts."""
    output_tokens_per_minute: int | None = Field(default=None, gt=0)
    """Those that were written, as Anthropic counts: a request is let in on any rest, and may leave a debt."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """As OpenAI counts: the input or the output that was asked for at most, whichever is more."""
    burst_s: float = Field(default=60.0, gt=0)
    """What a bucket holds, in seconds of its limit."""
    burst: int | None = Field(default=None, gt=0)
    """The same for requests, in requests."""
    refused_count: bool = False
    """A request that the limit refuses uses it up, too, as at OpenAI."""
    answers_as: str | None = None
    """The model that replies name instead of the one asked for: a silent model update."""

    @model_validator(mode="after")
    def _at_most_one_happens(self) -> Self:
        total = sum(getattr(self, fault) for fault in Fault)
        if total > 1 + 1e-9:
            raise ValueError(f"the probabilities of all faults must not exceed 1 together, got {total:g}")
        return self

    @model_validator(mode="after")
    def _outage_is_one(self) -> Self:
        if self.outage is not None and self.outage not in OUTAGES:
            raise ValueError(f"outage: expected one of {', '.join(sorted(OUTAGES))}, got {self.outage}")
        if (self.outage is None) != (self.outage_s == 0):
            raise ValueError("outage and outage_s belong together: which fault, and for how long")
        return self

    @classmethod
    def parse(cls, text: str) -> Faults:
        """From `rate_limited=0.05,reset@3,hang@turn2,seed=7` or a JSON object; raises ConfigError when it is wrong.

        `fault@3` scripts the third request; `fault@turn2` the second turn of every conversation, and written twice also
        the second attempt at it.
        """
        try:
            return cls.model_validate(json.loads(text) if text.lstrip().startswith("{") else _pairs(text))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise ConfigError(f"chaos: {where or 'together'}: {problem['msg']}{_hint(where)}") from error
        except ValueError as error:
            raise ConfigError(f"chaos: {error}") from error

    def outage_left_s(self, since_s: float) -> float:
        """How long the outage goes on, `since_s` after these faults were set; 0 when there is none then."""
        begun_s = since_s - self.outage_after_s
        return max(0.0, self.outage_s - begun_s) if begun_s >= 0 else 0.0

    def scripted(self, request: int, turn: int, attempt: int) -> Fault | None:
        """The fault that a script asks for."""
        of_turn = self.at_turn.get(turn, ())
        return self.at_request.get(request) or (of_turn[attempt - 1] if attempt <= len(of_turn) else None)

    def drawn(self, conversation: str, turn: int, attempt: int, faulted: int) -> Fault | None:
        """The fault that chance asks for, when this turn was `faulted` so many times before."""
        if self.once and faulted >= self.max_faults_per_turn:
            return None
        left = chance(self.seed, conversation, turn, attempt)
        for fault in Fault:
            left -= getattr(self, fault)
            if left < 0:
                return fault
        return None


def _pairs(text: str) -> JsonObject:
    """The fields that a chaos string sets."""
    fields: JsonObject = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = item.partition("=")
        if equals:
            fields[name.strip()] = value.strip()
            continue
        name, at, place = item.partition("@")
        turn = place.removeprefix("turn")
        if not (at and turn.isdecimal()):
            raise ValueError(f"expected name=value, fault@3 or fault@turn2, got {item!r}")
        if place == turn:
            fields.setdefault("at_request", {})[int(turn)] = name
        else:
            fields.setdefault("at_turn", {}).setdefault(int(turn), []).append(name)
    return fields


def _hint(name: str) -> str:
    if name in Faults.model_fields or "." in name or not name:
        return ""
    near = difflib.get_close_matches(name, Faults.model_fields, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(Faults.model_fields)}"
