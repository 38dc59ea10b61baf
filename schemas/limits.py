"""What a downstream may be asked to bear: its limits, how a call is counted against them, how it recovers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from midwatch.schemas.contract import Contract
from midwatch.schemas.step import Priority

Rate = Annotated[float, Field(gt=0, le=1e12)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0, le=1_000)]


PRIORITY_WEIGHTS = {Priority.HIGH: 4.0, Priority.NORMAL: 2.0, Priority.LOW: 1.0}


def _short(name: str, short: str) -> AliasChoices:
    return AliasChoices(name, short)


class Limits(Contract):
    """Limits of one downstream: a model of a provider, or what a tool's `downstream=` names.

    A rate that is not set is unlimited until the provider's headers name it or its 429s betray it. The figures that are
    not the vendor's own were found by simulation (`midwatch bench storm --simulate`).
    """

    requests_per_minute: Rate | None = Field(None, validation_alias=_short("requests_per_minute", "rpm"))
    input_tokens_per_minute: Rate | None = Field(None, validation_alias=_short("input_tokens_per_minute", "itpm"))
    output_tokens_per_minute: Rate | None = Field(None, validation_alias=_short("output_tokens_per_minute", "otpm"))
    tokens_per_minute: Rate | None = Field(None, validation_alias=_short("tokens_per_minute", "tpm"))
    """Input and output on one axis, as OpenAI counts them."""
    burst_s: float = Field(default=0.15, gt=0, le=60)
    """Depth of every bucket, in seconds of its limit: 60 a minute may be enforced as one a second (Anthropic's docs), and in no
    second more than 1 + `burst_s` times the limit arrives (measured: with 1.0, 1.6 times; with 0.1, 1.08 times)."""
    reserve_output: Literal["expected", "max_tokens", "none"] = "expected"
    """What a call reserves of output: the running 90th percentile, all it may write, or nothing."""
    count_cached: bool = True
    """Does input that was read from the prompt cache count?"""
    headroom: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The share of each bucket that only priority `high` may use."""
    priority_weights: dict[Priority, Weight] = Field(default_factory=lambda: dict(PRIORITY_WEIGHTS))
    tenant_weights: dict[str, Weight] = Field(default_factory=dict)
    """A tenant that is not named weighs 1."""
    fail_ratio: Share = 0.5
    """The breaker opens when, of the calls begun in one second, more than this share fails, by as many as if `min_calls` had
    all failed: 10 of 10, 15 of 20, 55 of 100 ..."""
    min_calls: int = Field(default=10, ge=1)
    failures_in_a_row: int = Field(default=8, ge=1)
    """... or, where calls are few or fail late, at so many failures in a row."""
    window_s: float = Field(default=5.0, gt=0, le=3_600)
    open_s: float = Field(default=2.0, gt=0, le=3_600)
    """How long the breaker stays open the first time; it doubles up to `open_max_s`."""
    open_max_s: float = Field(default=10.0, gt=0, le=3_600)
    probes: int = Field(default=5, ge=1, le=100)
    """Calls in flight at once over the whole fleet while it is half open; when most of so many are answered, it closes."""
    ramp_s: float = Field(default=5.0, gt=0, le=3_600)
    """Slow start: from nothing to the full rate, after an outage or a pause."""
    recover_s: float = Field(default=60.0, gt=0, le=86_400)
    """From nothing to the full rate after a 429 cut it: the additive increase of AIMD."""
    cut: float = Field(default=0.7, gt=0, lt=1)
    """What a 429 leaves of the rate (CUBIC's beta: Ha, Rhee, Xu 2008; also the AWS SDKs')."""
    retry_ratio: Share = 0.1
    """Retries that a success pays for while the downstream fails (10 %: SRE book, chapter 21)."""
    retry_floor_per_s: float = Field(default=0.5, ge=0, le=1_000)
    pause_max_s: float = Field(default=900.0, gt=0, le=86_400)
    """A longer `Retry-After` is cut to this."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.open_max_s < self.open_s:
            raise ValueError(f"open_max_s={self.open_max_s} is below open_s={self.open_s}; raise it")
        return self


class DownstreamStatus(Contract):
    """How a downstream stands: one row of `midwatch gate status`. Rates are per minute, levels in units of their limit."""

    name: str
    version: int
    """Of the limits in force: when they were set, in ms since the epoch."""
    limits: dict[str, float]
    """In force, by `requests`, `input_tokens`, `output_tokens`, `tokens`; without those that are unlimited."""
    levels: dict[str, float]
    """What the buckets hold. Below zero: a debt."""
    depths: dict[str, float]
    guessed: bool
    """The request limit was guessed from 429s: neither an operator nor the provider named one."""
    rate_factor: float
    """What AIMD, slow start and the brake leave of the limits, 0 to 1."""
    braked: bool
    """It fails in part, and is asked less for a while."""
    breaker: Literal["closed", "open", "half_open"]
    open_ms: float
    paused_ms: float
    paused_until_ms: int
    """0: not paused."""
    blocked_ms: float
    blocked_reason: str
    waiting: dict[Literal["high", "rest", "retry"], int]
    woken: int
    live: int
    """Reservations: calls admitted and not settled."""
    probes: int
    retries_left: float
    """Of the downstream's retry budget, which binds while `sick`."""
    sick: bool
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
    """Reservations whose worker died; charged as reserved."""
    window_ok: int
    window_failed: int

    @property
    def waiters(self) -> int:
        """Calls in line."""
        return sum(self.waiting.values())
