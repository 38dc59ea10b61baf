"""The parts that both OpenAI formats share: refusals, headers and tool results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from midwatch.schemas.contract import JsonObject
from midwatch.workers.simulator.brains.brain import ConversationTurn
from midwatch.workers.simulator.vendor_formats.result_pairing import OrphanResult, Result, UnansweredCalls, pair_results
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
    RefusalKind.BAD_REQUEST: (400, "invalid_request_error", None, "Invalid request."),
    RefusalKind.INVALID_REQUEST: (400, "invalid_request_error", None, "{detail}"),
    RefusalKind.NOT_FOUND: (404, "invalid_request_error", None, "{detail}"),
    RefusalKind.UNEXPECTED: (500, "server_error", "simulator_unexpected", "{detail}"),
}
"""Refusal -> status, type, code and message, collected from public issues. Each format adds its own overflow message."""


def write_refusal(refusal: Refusal, overflow: str, param: str) -> tuple[int, JsonObject]:
    """Write the status and body of a refusal. `overflow` is the message in which the two formats differ."""
    status, kind, code, wording = ERRORS.get(
        refusal.kind, (400, "invalid_request_error", "context_length_exceeded", overflow)
    )
    axis = refusal.unit.replace("-", " ")
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


def write_headers(request_id: str, rate: RateState | None, tokens: Iterable[RateState]) -> dict[str, str]:
    """Write the request id and the state of the limits.

    OpenAI sends reset times as durations, like `1s` and `6m0s`, and has one limit for all tokens.
    """
    header_values = {"x-request-id": request_id, "openai-version": "2020-10-01"}
    for state in (*([rate] if rate else []), *(state for state in tokens if state.unit == "tokens")):
        header_values |= {
            f"x-ratelimit-limit-{state.unit}": str(state.limit),
            f"x-ratelimit-remaining-{state.unit}": str(state.remaining),
            f"x-ratelimit-reset-{state.unit}": format_duration(state.reset_s),
        }
    return header_values


def format_duration(seconds: float) -> str:
    """Format a duration like `19ms`, `1.5s` or `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{round(rest)}s" if minutes else f"{round(rest, 3):g}s"


def pair_history(history: Sequence[ConversationTurn | Result], wording: str) -> tuple[ConversationTurn, ...]:
    """Pair results with calls. Raises BadRequest; `wording` is its message for a call without a result."""
    try:
        return pair_results(history)
    except UnansweredCalls as missing:
        raise BadRequest(wording.format(ids=missing)) from None
    except OrphanResult as orphan:
        raise BadRequest(f"No tool call found for tool output with call_id {orphan}.") from None


def make_result(call_id: object, text: str) -> Result:
    """Make a tool result. OpenAI has no flag for an error, so clients write `ERROR: ...`."""
    return Result(str(call_id or ""), text, text[:6].upper() == "ERROR:")
