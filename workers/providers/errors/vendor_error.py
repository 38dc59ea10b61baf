"""Parses the error body of any vendor and finds its failure kind.

The code and the message count more than the status, because the status is ambiguous. A spend cap is a 429 or a 400, a
full window is a 400, 413 or 429, and a gateway may send an error with status 200. Codes are matched exactly. Messages
are matched by phrases that vendors document, or that appear in public reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from midwatch.orchestration.protocol.retry_after import duration_ms
from midwatch.schemas.failure import FailureKind

OVERFLOW, RATE, QUOTA = FailureKind.CONTEXT_OVERFLOW, FailureKind.RATE_LIMITED, FailureKind.QUOTA_EXHAUSTED
AUTH, REFUSED, FORMAT = FailureKind.AUTH_ERROR, FailureKind.REFUSED, FailureKind.FORMAT_ERROR
OVERLOADED, TIMEOUT, PROVIDER = FailureKind.OVERLOADED, FailureKind.TIMEOUT, FailureKind.PROVIDER_ERROR

CODES: dict[str, FailureKind] = {
    **dict.fromkeys(("context_length_exceeded", "exceed_context_size_error", "request_too_large"), OVERFLOW),
    **dict.fromkeys(("request_body_too_large_after_decoding", "context_window_exceeded"), OVERFLOW),
    **dict.fromkeys(("contract_spend_limit_reached", "enforced_spend_limit_reached", "insufficient_quota"), QUOTA),
    **dict.fromkeys(("linked_organization_spend_limit_reached", "linked_organization_billing_unavailable"), QUOTA),
    **dict.fromkeys(("billing_error", "billing_hard_limit_reached", "billing_not_active"), QUOTA),
    **dict.fromkeys(("authentication_error", "permission_error", "invalid_api_key", "account_deactivated"), AUTH),
    **dict.fromkeys(("organization_on_hold", "unauthenticated", "permission_denied"), AUTH),
    **dict.fromkeys(("content_filter", "content_policy_violation", "responsible_ai_policy_violation"), REFUSED),
    **dict.fromkeys(("invalid_prompt", "bio_policy", "misalignment_policy_violation"), REFUSED),
    **dict.fromkeys(("overloaded_error", "overloaded", "engine_overloaded", "slow_down", "unavailable"), OVERLOADED),
    "compaction_unavailable": OVERLOADED,
    **dict.fromkeys(("timeout_error", "deadline_exceeded", "request_body_timeout", "vector_store_timeout"), TIMEOUT),
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded", "ramp_limit_exceeded", "resource_exhausted"), RATE),
}
"""A vendor's `code`, `type`, `error_code` or `status` in lower case -> kind. `server_error` is left out, because the
status says more."""

PRECEDENCE = (OVERFLOW, QUOTA, AUTH, REFUSED, OVERLOADED, TIMEOUT, RATE)
"""If an error matches several kinds, the first one here counts. A spend cap, for example, has the `type` of a rate
limit, but its own `code`."""

PHRASES: tuple[tuple[re.Pattern[str], FailureKind], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"prompt is too long", OVERFLOW),
        (r"maximum context length", OVERFLOW),
        (r"exceeds? the (?:model'?s? )?(?:maximum )?context (?:window|length|limit)", OVERFLOW),
        (r"exceeds the context window", OVERFLOW),
        (r"exceeds the available context size", OVERFLOW),
        (r"input length and `?max_tokens`? exceed context limit", OVERFLOW),
        (r"input token count .{0,40}exceeds the maximum number of tokens", OVERFLOW),
        (r"request too large|input is too long", OVERFLOW),
        (r"max_new_tokens`? must be <=", OVERFLOW),
        (r"reached your specified api usage limits", QUOTA),
        (r"credit balance is too low", QUOTA),
        (r"api key not valid|api_key_invalid", AUTH),
        (r"blocked by (?:our )?content filter", REFUSED),
    )
)

STATUSES: dict[int, FailureKind] = {
    401: AUTH, 402: QUOTA, 403: AUTH, 408: TIMEOUT, 409: PROVIDER, 413: OVERFLOW, 425: PROVIDER, 429: RATE,
    499: FailureKind.CONNECTION, 501: FORMAT, 503: OVERLOADED, 504: TIMEOUT, 522: TIMEOUT, 524: TIMEOUT,
    529: OVERLOADED,
}  # fmt: skip
"""Status -> kind, used if neither code nor message is known. Any other 4xx is a FORMAT_ERROR."""

_REQUESTED = re.compile(r"limit:?\s*([\d,]+)\b.{0,80}?\brequested:?\s*([\d,]+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class VendorError:
    """The fields of an error body that are used here. A field that the vendor does not send is empty."""

    codes: tuple[str, ...] = ()
    message: str = ""
    status: int | None = None
    """A status inside the body. Gateways send one there when the response's own status is 200."""
    retry_after_ms: int | None = None

    @classmethod
    def parse(cls, body: object) -> VendorError:
        """Parse an error body: `{"error": {...}}`, Google's list of it, a bare object, or a string in `error` or `detail`.

        Any other body gives an empty VendorError.
        """
        if isinstance(body, list) and body:
            body = body[0]
        if not isinstance(body, Mapping):
            return cls(message=body if isinstance(body, str) else "")
        inner = body.get("error", body)
        if not isinstance(inner, Mapping):
            inner = {"message": inner}
        details = inner.get("details")
        code = inner.get("code")
        message = inner.get("message") or inner.get("detail") or ""
        return cls(
            codes=tuple(_read_codes(inner, details)),
            message=message if isinstance(message, str) else "",
            status=code if isinstance(code, int) and not isinstance(code, bool) else None,
            retry_after_ms=_read_retry_delay_ms(details),
        )

    def kind(self, status: int) -> FailureKind:
        """Return the failure kind of this error in a response with this status."""
        if self._exceeds_limit():
            return OVERFLOW
        found = {CODES[code] for code in self.codes if code in CODES}
        found.update(kind for pattern, kind in PHRASES if pattern.search(self.message))
        for kind in PRECEDENCE:
            if kind in found:
                return kind
        return kind_by_status(self.status if self.status and status < 400 else status)

    def _exceeds_limit(self) -> bool:
        """Return True if one request asks for more tokens than the whole limit, so that no wait can help."""
        found = _REQUESTED.search(self.message)
        if found is None:
            return False
        limit, requested = (int(number.replace(",", "") or 0) for number in found.groups())
        return requested > limit > 0


def kind_by_status(status: int) -> FailureKind:
    """Return the failure kind of a status without a body."""
    if status in STATUSES:
        return STATUSES[status]
    return FORMAT if 400 <= status < 500 else PROVIDER


def _read_codes(inner: Mapping[str, object], details: object) -> Iterator[str]:
    for value in (inner.get("code"), inner.get("type"), inner.get("status")):
        if isinstance(value, str):
            yield value.lower()
    if isinstance(details, Mapping) and isinstance(code := details.get("error_code"), str):
        yield code.lower()
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, Mapping) and "PerDay" in str(detail.get("violations")):
            yield "insufficient_quota"


def _read_retry_delay_ms(details: object) -> int | None:
    """Read the wait from Google's `RetryInfo`, because Google sends no header."""
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, Mapping) and isinstance(delay := detail.get("retryDelay"), str):
            return duration_ms(delay)
    return None
