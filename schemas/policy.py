"""What a user decides in code: retries, context budget, limits, model policy, escalation, goal. Checked at construction."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from midwatch.schemas.contract import Contract
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import SessionPolicy

TRANSIENT = (
    FailureKind.RATE_LIMITED,
    FailureKind.OVERLOADED,
    FailureKind.PROVIDER_ERROR,
    FailureKind.TIMEOUT,
    FailureKind.CONNECTION,
)
"""Transient kinds: the default of `retry_on`."""

NEVER_RETRIED = (
    FailureKind.CANCELLED,
    FailureKind.POLICY_DENIED,
    FailureKind.UNKNOWN_EFFECT,
    FailureKind.QUOTA_EXHAUSTED,
    FailureKind.WAITED_TOO_LONG,
)
"""Kinds that no configuration may retry: waiting does not help, and a repetition does harm."""


Count = Annotated[int, Field(ge=0)]


class Policy(Contract):
    """Base of the policies that users write. Fields may be passed by position. An error suggests the name for a misspelt one."""

    if not TYPE_CHECKING:  # type checkers see the fields as keywords

        def __init__(self, *values: object, **fields: object) -> None:
            known = list(type(self).model_fields)
            if len(values) > len(known):
                raise ValueError(f"{type(self).__name__} takes at most {len(known)} values, got {len(values)}")
            for name, value in zip(known, values, strict=False):
                if name in fields:
                    raise ValueError(f"{type(self).__name__} got {name} twice: by place and by name")
                fields[name] = value
            for name in fields:
                if name not in known:
                    close = get_close_matches(name, known, 1)
                    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                    raise ValueError(f"{type(self).__name__} got an unknown keyword {name!r}; {hint}")
            super().__init__(**fields)


class RetryConfig(Policy):
    """Which failures are retried, how often, and after which wait.

    The wait before try *n* (from 1) is drawn from `U(0, min(cap_s, base_s * backoff_factor ** (n - 1)))` ("full jitter",
    AWS Architecture Blog, 2015). With `jitter="none"` it is exactly that maximum. A `Retry-After` is added to it.
    """

    max_retries: int = Field(default=3, ge=0, le=100)
    backoff_factor: float = Field(default=2.0, ge=1.0, le=10.0)
    base_s: float = Field(default=1.0, gt=0, le=3600)
    cap_s: float = Field(default=60.0, gt=0, le=86_400)
    jitter: Literal["full", "none"] = "full"
    retry_on: tuple[FailureKind, ...] = TRANSIENT
    fail_hard_on: tuple[FailureKind, ...] = ()
    redrive: Literal["manual", "auto"] = "manual"
    """`auto`: a dead letter whose cause has passed is replayed without a human, below live work."""
    max_redrives: int = Field(default=3, ge=1, le=100)
    """How often one job's dead letters are replayed without a human."""

    @field_validator("retry_on", "fail_hard_on", mode="before")
    @classmethod
    def _known_kinds(cls, value: object) -> object:
        for kind in value if isinstance(value, (list, tuple)) else ():
            if kind not in set(FailureKind):
                raise ValueError(f"unknown failure kind {kind!r}; expected one of: {', '.join(FailureKind)}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        both = [kind.value for kind in self.retry_on if kind in self.fail_hard_on]
        if both:
            raise ValueError(f"{', '.join(both)}: in both retry_on and fail_hard_on; keep each kind in one of them")
        never = [kind.value for kind in self.retry_on if kind in NEVER_RETRIED]
        if never:
            raise ValueError(f"{', '.join(never)}: can't be retried, a repetition does harm; take it out of retry_on")
        if self.cap_s < self.base_s:
            raise ValueError(f"cap_s={self.cap_s} is below base_s={self.base_s}; the first wait would exceed the cap")
        return self


class ContextBudget(Policy):
    """How many tokens one call may hold, and what happens to a longer one. All input counts, and so does `reserve_output`."""

    max_tokens: int = Field(ge=1_000)
    on_overflow: Literal["summarize_and_trim", "trim_oldest", "escalate", "fail"] = "summarize_and_trim"
    act_at: float = Field(default=0.80, gt=0, le=1)
    wait_at: float = Field(default=0.95, gt=0, le=1)
    shrink_to: float = Field(default=0.50, gt=0, lt=1)
    reserve_output: int = Field(default=8_000, ge=1)
    summary_model: str | None = None
    """The model that writes the summary in the memory. None: the memory is made without a model, from verbatim text."""
    pin: tuple[str, ...] = ()
    """Texts that every call contains. A compaction never removes them."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.shrink_to < self.act_at <= self.wait_at:
            raise ValueError(
                f"expected shrink_to < act_at <= wait_at, got {self.shrink_to}, {self.act_at}, {self.wait_at}"
            )
        if self.reserve_output >= self.max_tokens:
            raise ValueError(
                f"reserve_output={self.reserve_output} leaves nothing of max_tokens={self.max_tokens}; lower the reserve"
            )
        return self


class RunLimits(Policy):
    """Hard limits of one job. A message that is delivered twice can't exceed them, because Redis counts, not the worker."""

    max_steps: int = Field(default=50, ge=1, le=100_000)
    """Model turns."""
    session_timeout_s: float = Field(default=2_700.0, gt=0)
    """From the job's first step to its end."""
    max_tool_calls: Count | dict[str, Count] | None = None
    max_input_tokens: int | None = Field(default=None, ge=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    max_cost_usd: float | None = Field(default=None, gt=0)
    max_children: int = Field(default=8, ge=0)
    max_depth: int = Field(default=3, ge=0)
    call_timeout_s: float = Field(default=120.0, gt=0)
    """Time limit of one model call."""
    on_busy: SessionPolicy = SessionPolicy.ENQUEUE
    """What a new job does if its session is busy: wait, be rejected, or interrupt the running job."""
    max_wait_s: float | None = Field(default=86_400.0, gt=0)
    """How long others may hold the job in all: downstreams, humans, waiting children, a lack of workers. None: no bound."""
    deadline_s: float | None = Field(default=None, gt=0)
    """Work and waits together, from `enqueue` on. None: no bound."""


class ModelPolicy(Policy):
    """What happens when the model behind a name changes."""

    allow_alias: bool = False
    on_change: Literal["hold", "warn", "allow"] = "hold"
    on_version_change: Literal["finish", "adopt", "park"] = "finish"


class Escalation(Policy):
    """When a human is asked, and what happens without an answer."""

    when: Literal[
        "tool_approval", "repeated_failure", "budget_share", "drift", "tainted_argument", "unknown_effect", "model_asks"
    ]
    tools: tuple[str, ...] = ()
    share: float | None = Field(default=None, gt=0, le=1)
    risk: Literal["low", "medium", "high"] = "medium"
    expires_s: float | None = Field(default=None, gt=0)
    on_expiry: Literal["reject", "dead_letter", "approve"] = "reject"


class GoalContract(Policy):
    """The goal of a job. Every compaction keeps it word for word."""

    objective: str = Field(min_length=1)
    deliverables: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
