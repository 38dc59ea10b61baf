"""What the two OpenAI wires share: how the vendor says no, its headers, and the shape of a tool result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from midwatch.schemas.contract import JsonObject
from midwatch.workers.simulator.brains.brain import Turn
from midwatch.workers.simulator.pairing import OrphanResult, Result, UnansweredCalls, pair
from midwatch.workers.simulator.vendor_formats.vendor_format import BadRequest, RateState, Refusal, RefusalKind

ERRORS: dict[RefusalKind, tuple[int, str, str | None, str]] = {
    RefusalKind.RATE_LIMITED: (
        429,
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached for {model} on {axis} per min ({short}): Limit {limit}, Used {used}, Requested {needed}. "
        "{advice}",
    ),
    RefusalKind.OVERLOADED: (
        503,
        "server_error",
        None,
        "The engine is currently overloaded, please try again later",
    ),
    RefusalKind.PROVIDER_ERROR: (500, "server_error", None, "The server had an error while processing your request."),
    RefusalKind.QUOTA_EXHAUSTED: (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    RefusalKind.SPEND_CAP: (
        400,
        "invalid_request_error",
        "billing_hard_limit_reached",
        "Billing hard limit has been reached.",
    ),
    RefusalKind.AUTH_ERROR: (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    RefusalKind.PAYLOAD_TOO_LARGE: (413, "invalid_request_error", None, "Request entity too large"),
    RefusalKind.INVALID_REQUEST: (400, "invalid_request_error", None, "{detail}"),
    RefusalKind.NOT_FOUND: (404, "invalid_request_error", None, "{detail}"),
    RefusalKind.UNEXPECTED: (500, "server_error", "simulator_unexpected", "{detail}"),
}
"""Status, type, code and wording, as collected from public issues. Each wire adds its own words for an overflow."""


def refuse(refusal: Refusal, overflow: str, param: str) -> tuple[int, JsonObject]:
    """Status and body; `overflow` words the one refusal in which the two wires differ."""
    status, kind, code, wording = ERRORS.get(
        refusal.kind, (400, "invalid_request_error", "context_length_exceeded", overflow)
    )
    axis = refusal.of.replace("-", " ")
    advice = "The input or output tokens must be reduced in order to run successfully."
    if refusal.retry_after_s is not None:
        advice = f"Please try again in {refusal.retry_after_s:g}s."
    message = wording.format(
        model=refusal.model,
        axis=axis,
        short="RPM" if axis == "requests" else "TPM",
        limit=refusal.limit,
        used=refusal.limit if refusal.used is None else refusal.used,
        needed=refusal.needed,
        advice=advice,
        tokens=refusal.tokens,
        detail=refusal.detail,
    )
    if refusal.kind is RefusalKind.RATE_LIMITED and axis != "requests":
        kind = "tokens"
    named = param if refusal.kind is RefusalKind.CONTEXT_OVERFLOW else None
    return status, {"error": {"message": message, "type": kind, "param": named, "code": code}}


def headers(request_id: str, rate: RateState | None, tokens: Iterable[RateState]) -> dict[str, str]:
    """Request id, and the limits' state; this vendor tells durations, like `1s` and `6m0s`, and has one axis of tokens."""
    told = {"x-request-id": request_id, "openai-version": "2020-10-01"}
    for state in (*([rate] if rate else []), *(state for state in tokens if state.of == "tokens")):
        told |= {
            f"x-ratelimit-limit-{state.of}": str(state.limit),
            f"x-ratelimit-remaining-{state.of}": str(state.remaining),
            f"x-ratelimit-reset-{state.of}": duration(state.reset_s),
        }
    return told


def duration(seconds: float) -> str:
    """`19ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{round(rest)}s" if minutes else f"{round(rest, 3):g}s"


def paired(history: Sequence[Turn | Result], wording: str) -> tuple[Turn, ...]:
    """The history with results tied to calls; `wording` says what is wrong when a call has none. Raises BadRequest."""
    try:
        return pair(history)
    except UnansweredCalls as missing:
        raise BadRequest(wording.format(ids=missing)) from None
    except OrphanResult as orphan:
        raise BadRequest(f"No tool call found for tool output with call_id {orphan}.") from None


def result(call_id: object, text: str) -> Result:
    """A tool result. This vendor has no flag for a failure: clients write `ERROR: ...`."""
    return Result(str(call_id or ""), text, text[:6].upper() == "ERROR:")
