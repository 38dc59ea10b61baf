"""The limits of a downstream, how a call is counted against them, and how the rate recovers after failures."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from midwatch.schemas.contract import Contract
from midwatch.schemas.step import LivePriority

Rate = Annotated[float, Field(gt=0, le=1e12)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0, le=1_000)]


Lane = Literal["high", "high_first", "rest", "retry", "rest_first", "replay"]
"""Where calls wait at a downstream. The lanes with `first` hold the first calls of new jobs."""

PRIORITY_WEIGHTS: dict[LivePriority, float] = {"high": 4.0, "normal": 2.0, "low": 1.0}


def _short(name: str, short: str) -> AliasChoices:
    return AliasChoices(name, short)


class Limits(Contract):
    """Limits of one downstream: a model of a provider, or what a tool's `downstream=` names.

    A rate that is not set is unlimited, until the provider's headers name a limit or its 429s show one. The defaults that
    do not come from a vendor were found by simulation (`midwatch bench storm --simulate`).
    """

    requests_per_minute: Rate | None = Field(None, validation_alias=_short("requests_per_minute", "rpm"))
    input_tokens_per_minute: Rate | None = Field(None, validation_alias=_short("input_tokens_per_minute", "itpm"))
    output_tokens_per_minute: Rate | None = Field(None, validation_alias=_short("output_tokens_per_minute", "otpm"))
    tokens_per_minute: Rate | None = Field(None, validation_alias=_short("tokens_per_minute", "tpm"))
    """Input and output tokens together, as OpenAI counts them."""
    burst_s: float = Field(default=0.15, gt=0, le=60)
    """Size of every bucket, in seconds of its limit. A provider may enforce 60 calls a minute as one a second (Anthropic's
    docs). No second gets more than 1 + `burst_s` times the limit (measured: with 1.0, 1.6 times; with 0.1, 1.08 times)."""
    reserve_output: Literal["expected", "max_tokens", "none"] = "expected"
    """How much output a call reserves: the running 90th percentile, its `max_output_tokens`, or nothing."""
    count_cached: bool = True
    """Does input from the prompt cache count?"""
    headroom: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The share of each bucket that only priority `high` may use."""
    priority_weights: dict[LivePriority, Weight] = Field(default_factory=lambda: dict(PRIORITY_WEIGHTS))
    """Shares of the line. Replays have no weight, because they wait behind all other calls."""
    tenant_weights: dict[str, Weight] = Field(default_factory=dict)
    """The weight of a tenant that is not listed is 1."""
    fail_ratio: Share = 0.5
    """The breaker opens if, of n calls begun in one second, `fail_ratio * n + (1 - fail_ratio) * min_calls` or more fail.

    With the defaults these are 10 of 10, 15 of 20 or 55 of 100 calls. Few calls need a larger share, because chance alone can
    exceed a share.
    """
    min_calls: int = Field(default=10, ge=1)
    failures_in_a_row: int = Field(default=8, ge=1)
    """The breaker also opens at this many failures in a row. It needs this rule if calls are few or fail late."""
    window_s: float = Field(default=5.0, gt=0, le=3_600)
    open_s: float = Field(default=2.0, gt=0, le=3_600)
    """How long the breaker stays open the first time. Each further time is twice as long, up to `open_max_s`."""
    open_max_s: float = Field(default=10.0, gt=0, le=3_600)
    probes: int = Field(default=5, ge=1, le=100)
    """The most calls at once, in the whole fleet, while the breaker is half open. It closes when more than half of this number
    are answered."""
    trial_gap_s: float = Field(default=0.75, ge=0, le=10)
    """The least time between two calls of the whole fleet while the downstream is in trouble: no call was answered since
    several failed. With the default at most two calls a second arrive, even from slow workers. It grows to 10 s. 0: no gap."""
    ramp_s: float = Field(default=5.0, gt=0, le=3_600)
    """Slow start: the time from zero to the full rate after an outage or a pause."""
    recover_s: float = Field(default=60.0, gt=0, le=86_400)
    """The time in which the rate would grow from zero to full after a 429: the additive increase of AIMD."""
    cut: float = Field(default=0.7, gt=0, lt=1)
    """The factor by which a 429 cuts the rate (CUBIC's beta: Ha, Rhee, Xu 2008; the AWS SDKs use it too)."""
    retry_ratio: Share = 0.1
    """How many retries a success adds to the retry budget (10 %: SRE book, chapter 21). It applies while the downstream fails."""
    retry_floor_per_s: float = Field(default=0.5, ge=0, le=1_000)
    pause_max_s: float = Field(default=900.0, gt=0, le=86_400)
    """A longer `Retry-After` is cut to this."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.open_max_s < self.open_s:
            raise ValueError(f"open_max_s={self.open_max_s} is below open_s={self.open_s}; raise it")
        return self


class DownstreamStatus(Contract):
    """The state of a downstream: one row of `midwatch gate status`. Rates are per minute. Levels have the unit of their limit."""

    name: str
    version: int
    """The version of the limits in force: when they were set, in ms since the epoch."""
    limits: dict[str, float]
    """The limits in force, by `requests`, `input_tokens`, `output_tokens`, `tokens`. One that is missing is unlimited."""
    levels: dict[str, float]
    """What the buckets hold. A level below zero is a debt."""
    depths: dict[str, float]
    guessed: bool
    """The request limit was guessed from 429s, because neither an operator nor the provider named one."""
    rate_factor: float
    """The share of the limits, 0 to 1, that AIMD, slow start and the brake allow now."""
    braked: bool
    """A part of its calls fails, so fewer calls are admitted for a while."""
    breaker: Literal["closed", "open", "half_open"]
    open_ms: float
    paused_ms: float
    paused_until_ms: int
    """0 if the downstream is not paused."""
    blocked_ms: float
    blocked_reason: str
    waiting: dict[Lane, int]
    """Calls in line, by lane."""
    woken: int
    live: int
    """Reservations: calls that are admitted and not settled yet."""
    probes: int
    retries_left: float
    """What is left of the downstream's retry budget. It limits retries only while `sick`."""
    sick: bool
    in_trouble: bool = False
    """No call has been answered since several failed. At most two calls a second are sent until one is answered."""
    expected_output: float
    latency_ms: float
    admitted: int
    retried: int
    waited: int
    denied: int
    ok: int
    failed: int
    throttled: int
    lost: int
    """Reservations whose worker died. They are charged in full."""
    window_ok: int
    window_failed: int

    @property
    def waiters(self) -> int:
        """Number of calls in line."""
        return sum(self.waiting.values())
