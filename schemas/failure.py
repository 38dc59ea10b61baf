"""Why a step did not succeed, as data: the kinds of failure, and the record of one failure."""

from __future__ import annotations

from enum import StrEnum

from midwatch.schemas.contract import Record


class FailureKind(StrEnum):
    """All kinds of failure. An error of a provider or a tool is mapped to one of them where it is caught."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    PROVIDER_ERROR = "provider_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TOOL_ERROR = "tool_error"
    FORMAT_ERROR = "format_error"
    CONTEXT_OVERFLOW = "context_overflow"
    AUTH_ERROR = "auth_error"
    QUOTA_EXHAUSTED = "quota_exhausted"
    REFUSED = "refused"
    OUTPUT_INVALID = "output_invalid"
    BUDGET_EXCEEDED = "budget_exceeded"
    POLICY_DENIED = "policy_denied"
    CANCELLED = "cancelled"
    UNKNOWN_EFFECT = "unknown_effect"
    WORKER_LOST = "worker_lost"
    WAITED_TOO_LONG = "waited_too_long"
    RECORD_LOST = "record_lost"
    """Redis has lost a record of the job or of its session."""
    INTERNAL = "internal"


class RetryAdvice(StrEnum):
    """What is known about a retry of a transient failure, in addition to a wait in seconds."""

    SLOW = "slow"
    """What answered is not the provider: a firewall, a proxy, a login page. It is not over within seconds."""
    LAST = "last"
    """The downstream asks not to retry (`x-should-retry: false`).

    The step becomes a dead letter, unless the downstream is down for all.
    """


class Failure(Record):
    """One failure. `detail` is for people. It must not contain a key or a part of the conversation."""

    kind: FailureKind
    detail: str
    retry_after_ms: int | None = None
    """The wait that the downstream asked for, if any."""
    limit: str | None = None
    """The field of `RunLimits` that ended the job, if one did: raise it, then replay."""
    request_id: str | None = None
    """The provider's id of the failed call. Its support asks for it."""
    status: int | None = None
    """The HTTP status of the response. 200 if the response could not be used, None if there was none."""

    advice: RetryAdvice | None = None
    """Set for a transient failure that should not be retried as usual."""

    @property
    def is_refused_request(self) -> bool:
        """Did the downstream refuse the request's form? Another form may pass.

        A reply that can't be read is no refusal. A 400 without a body may be one: some servers give no reason.
        """
        if self.kind is FailureKind.PROVIDER_ERROR:
            return self.status in (400, 422)
        return self.kind is FailureKind.FORMAT_ERROR and self.status != 200
