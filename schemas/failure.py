"""Why a step did not succeed, as data: the closed set of kinds, and one failure."""

from __future__ import annotations

from enum import StrEnum

from midwatch.schemas.contract import Record


class FailureKind(StrEnum):
    """The closed set. A provider's or tool's own error is mapped onto one of these where it is caught."""

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
    INTERNAL = "internal"


class Failure(Record):
    """One failure. `detail` is for people and must hold neither a key nor a transcript."""

    kind: FailureKind
    detail: str
    retry_after_ms: int | None = None
    """What the downstream asked us to wait, when it said so."""
    request_id: str | None = None
    """The provider's own id of the failed call, for its support desk."""
