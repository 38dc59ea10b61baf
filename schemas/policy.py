"""What a user decides in code: retries, context budget, limits, model policy, escalation, goal. Checked at construction."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from midwatch.schemas.contract import Policy
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import SessionPolicy

TRANSIENT = (
    FailureKind.RATE_LIMITED,
    FailureKind.OVERLOADED,
    FailureKind.PROVIDER_ERROR,
    FailureKind.TIMEOUT,
    FailureKind.CONNECTION,
)
"""Transient kinds: they are always tried again, unless `fail_hard_on` names them."""

NEVER_RETRIED = (
    FailureKind.CANCELLED,
    FailureKind.POLICY_DENIED,
    FailureKind.UNKNOWN_EFFECT,
    FailureKind.QUOTA_EXHAUSTED,
    FailureKind.BUDGET_EXCEEDED,
    FailureKind.WAITED_TOO_LONG,
)
"""Kinds that no configuration may retry: waiting does not help, and a repetition does harm."""


Count = Annotated[int, Field(ge=0)]
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class RetryConfig(Policy):
    """Which failures are retried, how often, and after which wait.

    Transient kinds are always tried again, unless `fail_hard_on` names them. `retry_on` says which others are. `max_retries`
    counts the failures that are the call's own fault. A transient failure at a downstream counts only if the call fails
    again and again while other calls to it are answered. An outage uses up no retries.

    The wait before try *n* (from 1) is drawn from `U(0, min(cap_s, base_s * backoff_factor ** (n - 1)))` ("full jitter",
    AWS Architecture Blog, 2015). With `jitter="none"` it is exactly that maximum. A `Retry-After` is added to it.

    `format_error` in `retry_on` means a reply of the provider that can't be read. A request that the provider refuses (a 400) is
    not sent again. Invalid calls and answers of the model are not retried: the ladder answers them, and when it gives up, the
    job ends.
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
        chosen = self.retry_on if self._set("retry_on") else ()  # fail_hard_on takes kinds away from the default
        both = [kind.value for kind in chosen if kind in self.fail_hard_on]
        if both:
            raise ValueError(f"{', '.join(both)}: in both retry_on and fail_hard_on; keep each kind in one of them")
        never = [kind.value for kind in self.retry_on if kind in NEVER_RETRIED]
        if never:
            raise ValueError(f"{', '.join(never)}: can't be retried, a repetition does harm; take it out of retry_on")
        others = [kind.value for kind in self.retry_on if kind not in TRANSIENT]
        if others and self.max_retries == 0:
            raise ValueError(
                f"retry_on names {', '.join(others)}, but max_retries=0 allows no retry; raise max_retries, or name the kind "
                "in fail_hard_on to end the job at once"
            )
        if self._set("max_redrives") and self.redrive == "manual":
            raise ValueError(
                f"max_redrives={self.max_redrives} has no effect with redrive='manual'; set redrive='auto', or leave it out"
            )
        if self.cap_s < self.base_s:
            raise ValueError(f"cap_s={self.cap_s} is below base_s={self.base_s}; the first wait would exceed the cap")
        return self


SHRINK_TO = 0.65
"""At 0.5 a window of 32,000 tokens forgot a fifth of the facts that it needed again. At 0.65 it compacts a fifth more often."""


class ContextBudget(Policy):
    """How many tokens one call may hold, and what happens to a longer one. All input counts, and so does `reserve_output`."""

    max_tokens: int = Field(ge=1_000)
    on_overflow: Literal["summarize_and_trim", "trim_oldest", "escalate", "fail"] = "summarize_and_trim"
    act_at: float = Field(default=0.80, gt=0, le=1)
    wait_at: float = Field(default=0.95, gt=0, le=1)
    shrink_to: float = Field(default=SHRINK_TO, gt=0, lt=1)
    """Default: 0.65, and less if `act_at` is below 0.8."""
    reserve_output: int = Field(default=8_000, ge=1)
    summary_model: str | None = None
    """The model that writes the summary in the memory. None: the memory is made without a model, from verbatim text."""
    pin: tuple[Line, ...] = ()
    """Texts that every call contains. A compaction never removes them."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "shrink_to" not in self.model_fields_set:
            object.__setattr__(self, "shrink_to", min(SHRINK_TO, self.act_at * SHRINK_TO / 0.8))
        if not self.shrink_to < self.act_at <= self.wait_at:
            raise ValueError(
                f"expected shrink_to < act_at <= wait_at, got {self.shrink_to}, {self.act_at}, {self.wait_at}"
            )
        if self.reserve_output >= self.max_tokens:
            raise ValueError(
                f"reserve_output={self.reserve_output} leaves nothing of max_tokens={self.max_tokens}; lower the reserve"
            )
        if useless := self._set(*_UNUSED_BY_OVERFLOW.get(self.on_overflow, ())):
            raise ValueError(
                f"on_overflow={self.on_overflow!r} does not use {', '.join(useless)}; leave it out, or use 'summarize_and_trim'"
            )
        return self


_UNUSED_BY_OVERFLOW: dict[str, tuple[str, ...]] = {
    "trim_oldest": ("summary_model",),
    "escalate": ("act_at", "wait_at"),
    "fail": ("act_at", "wait_at", "shrink_to", "summary_model"),
}
"""Fields of `ContextBudget` that have no effect with a value of `on_overflow`. `escalate` and `fail` act at 100 % only."""


class RunLimits(Policy):
    """Hard limits of a job. Those of steps, tool calls, tokens and time bind the job and all its descendants together.

    A message that is delivered twice can't exceed them, because Redis counts, not the worker.
    """

    NOT_BUILT: ClassVar[dict[str, str]] = {"max_cost_usd": "limit tokens instead: max_input_tokens, max_output_tokens"}

    max_steps: int = Field(default=50, ge=1, le=100_000)
    """Model turns."""
    session_timeout_s: float = Field(default=2_700.0, gt=0)
    """The job's own work: its calls, its tools, its own backoff. What others take counts for `max_wait_s`."""
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
    """The longest time in which the job may wait for others: downstreams, humans, children that wait, workers. None: no bound."""
    deadline_s: float | None = Field(default=None, gt=0)
    """The longest time from `enqueue` to the end, with work and waits. None: no bound."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        """Refuse a limit that can't be reached, because another one comes first. Defaults are not compared."""
        for name in self._set("session_timeout_s", "max_wait_s"):
            limit = getattr(self, name)
            if limit is not None and self.deadline_s is not None and limit > self.deadline_s:
                raise ValueError(
                    f"{name}={limit:g} is never reached: deadline_s={self.deadline_s:g} ends the job before; "
                    f"lower {name}, raise deadline_s, or leave one out"
                )
        if self._set("call_timeout_s") and self.deadline_s is not None and self.call_timeout_s > self.deadline_s:
            raise ValueError(
                f"call_timeout_s={self.call_timeout_s:g} is above deadline_s={self.deadline_s:g}: one call may take longer than "
                "the whole job; lower call_timeout_s, or raise deadline_s"
            )
        return self


class ModelPolicy(Policy):
    """Which model names are accepted. `on_change` and `on_version_change` are planned: so far no change is noticed."""

    NOT_BUILT: ClassVar[dict[str, str]] = {
        "on_change": "so far no change of a model is noticed: pin the model's name",
        "on_version_change": "a job goes on with the code that its workers have loaded: to change that, rename the agent",
    }

    allow_alias: bool = False
    """True accepts a name that the vendor can point to another model."""
    on_change: Literal["hold", "warn", "allow"] = "hold"
    on_version_change: Literal["finish", "adopt", "park"] = "finish"
    allow_retired: bool = False
    """True accepts a model that its vendor has retired, for a server that still has it (a gateway, another cloud)."""


class Escalation(Policy):
    """When a human is asked, and what happens without an answer."""

    NOT_BUILT: ClassVar[dict[str, str]] = {
        "share": "limit the job with RunLimits, for example max_steps or max_input_tokens",
        "risk": "name the tools instead: Escalation(when='tool_approval', tools=[...])",
    }

    when: Literal[
        "tool_approval", "repeated_failure", "budget_share", "drift", "tainted_argument", "unknown_effect", "model_asks"
    ]
    tools: tuple[str, ...] = ()
    """The rule applies to calls of these tools. Empty: to calls of all tools."""
    share: float | None = Field(default=None, gt=0, le=1)
    risk: Literal["low", "medium", "high"] = "medium"
    expires_s: float | None = Field(default=None, gt=0)
    on_expiry: Literal["reject", "dead_letter", "approve"] = "reject"

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        if instead := _TRIGGERS_NOT_BUILT.get(self.when):
            raise ValueError(f"when={self.when!r}: not built yet, so no human would be asked; {instead}")
        if self._set("on_expiry") and self.expires_s is None:
            raise ValueError(
                f"on_expiry={self.on_expiry!r} has no effect without expires_s: the question never expires; set expires_s"
            )
        return self


_TRIGGERS_NOT_BUILT = {
    "budget_share": "limit the job with RunLimits: over a limit it becomes a dead letter, which a human can replay",
    "drift": "run `midwatch findings`, which shows models and tools that drift",
    "tainted_argument": "use when='tool_approval' for the tools that must not run on text from outside",
    "model_asks": "give the agent a tool with requires_approval=True that takes the model's question",
}
"""Values of `Escalation.when` without an effect so far, and what to do instead."""


class GoalContract(Policy):
    """The goal of a job. It is part of the system prompt of every call, word for word. No compaction changes it."""

    objective: Line
    deliverables: tuple[Line, ...] = ()
    constraints: tuple[Line, ...] = ()
