"""What the codes, phrases and statuses of all vendors mean.

Codes are matched exactly. Phrases are the last resort, for errors without a telling code. They are phrases that vendors
document, or that appear in public reports.

Sources: the SDKs and error pages of Anthropic, OpenAI, Azure, Google, AWS Bedrock (exception names), Mistral, Groq,
Moonshot, DeepSeek, DashScope (`Throttling.*`, `Arrearage`), Z.ai (1000-1399), MiniMax (`base_resp`, platform.minimax.io
errorcode), Cloudflare, LiteLLM, OpenRouter.
"""

from __future__ import annotations

import re

from midwatch.schemas.failure import FailureKind

OVERFLOW, RATE, QUOTA = FailureKind.CONTEXT_OVERFLOW, FailureKind.RATE_LIMITED, FailureKind.QUOTA_EXHAUSTED
AUTH, REFUSED, FORMAT = FailureKind.AUTH_ERROR, FailureKind.REFUSED, FailureKind.FORMAT_ERROR
OVERLOADED, TIMEOUT, PROVIDER = FailureKind.OVERLOADED, FailureKind.TIMEOUT, FailureKind.PROVIDER_ERROR

CODES: dict[str, FailureKind] = {
    **dict.fromkeys(("context_length_exceeded", "exceed_context_size_error", "request_too_large"), OVERFLOW),
    **dict.fromkeys(("request_body_too_large_after_decoding", "context_window_exceeded"), OVERFLOW),
    **dict.fromkeys(("string_above_max_length", "prompt_too_long", "1261", "base_resp.1039"), OVERFLOW),
    **dict.fromkeys(("contract_spend_limit_reached", "enforced_spend_limit_reached", "insufficient_quota"), QUOTA),
    **dict.fromkeys(("linked_organization_spend_limit_reached", "linked_organization_billing_unavailable"), QUOTA),
    **dict.fromkeys(("billing_error", "billing_hard_limit_reached", "billing_not_active"), QUOTA),
    **dict.fromkeys(("insufficient_balance", "exceeded_current_quota_error", "insufficient_credits"), QUOTA),
    **dict.fromkeys(("arrearage", "prepaidbilloverdue", "postpaidbilloverdue", "commoditynotpurchased"), QUOTA),
    **dict.fromkeys(("allocationquota.freetieronly", "budget_exceeded", "servicequotaexceededexception"), QUOTA),
    **dict.fromkeys(("1113", "base_resp.1008"), QUOTA),
    **dict.fromkeys(("authentication_error", "permission_error", "invalid_api_key", "account_deactivated"), AUTH),
    **dict.fromkeys(("organization_on_hold", "unauthenticated", "permission_denied", "api_key_invalid"), AUTH),
    **dict.fromkeys(("invalidapikey", "invalid_authentication_error", "auth_error", "token_expired"), AUTH),
    **dict.fromkeys(("accessdeniedexception", "unrecognizedclientexception", "expiredtokenexception"), AUTH),
    **dict.fromkeys(("unsupported_country_region_territory", "base_resp.1004", "base_resp.2049"), AUTH),
    **dict.fromkeys(("content_filter", "content_policy_violation", "responsible_ai_policy_violation"), REFUSED),
    **dict.fromkeys(
        ("invalid_prompt", "invalid_request_prompt", "bio_policy", "misalignment_policy_violation"), REFUSED
    ),
    **dict.fromkeys(("datainspectionfailed", "data_inspection_failed", "1301"), REFUSED),
    **dict.fromkeys(("base_resp.1026", "base_resp.1027"), REFUSED),
    **dict.fromkeys(("overloaded_error", "overloaded", "engine_overloaded", "slow_down", "unavailable"), OVERLOADED),
    **dict.fromkeys(("engine_overloaded_error", "model_overloaded", "server_overloaded", "server_busy"), OVERLOADED),
    "server_is_overloaded": OVERLOADED,
    **dict.fromkeys(("serviceunavailableexception", "modelnotreadyexception", "capacity_exceeded"), OVERLOADED),
    **dict.fromkeys(("compaction_unavailable", "service_unavailable", "1305"), OVERLOADED),
    **dict.fromkeys(("timeout_error", "deadline_exceeded", "request_body_timeout", "vector_store_timeout"), TIMEOUT),
    **dict.fromkeys(("modeltimeoutexception", "base_resp.1001"), TIMEOUT),
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded", "ramp_limit_exceeded", "resource_exhausted"), RATE),
    **dict.fromkeys(("rate_limited", "rate_limit_reached", "rate_limit_reached_error", "ratelimitexceeded"), RATE),
    **dict.fromkeys(("too_many_requests", "toomanyrequests", "ratelimitreached", "throttling_error"), RATE),
    **dict.fromkeys(("throttling", "throttled", "throttlingexception", "toomanyrequestsexception"), RATE),
    **dict.fromkeys(("throttling.ratequota", "throttling.allocationquota", "throttling.burstrate"), RATE),
    **dict.fromkeys(("limit_requests", "limit_burst_rate", "policies.ratelimit.quotaviolation"), RATE),
    **dict.fromkeys(("policies.ratelimit.spikearrestviolation", "usage_limit_reached"), RATE),
    **dict.fromkeys(("1302", "1303", "base_resp.1002", "base_resp.1041"), RATE),
}
"""A vendor's `code`, `type`, `error_code`, `reason` or `status` in lower case -> kind. `server_error` is left out,
because the status says more."""

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
        (r"api key not valid|api_key_invalid|(?:incorrect|invalid) api[ _-]?key|api key .{0,40}is invalid", AUTH),
        (r"blocked by (?:our )?content filter", REFUSED),
        (
            r"\b(?:input|content|prompt) was flagged\b|violates (?:our )?(?:usage|content) (?:guidelines|polic)",
            REFUSED,
        ),
        (r"(?:engine|model|server|service) is (?:currently |temporarily )?overloaded", OVERLOADED),
    )
)

STATUSES: dict[int, FailureKind] = {
    401: AUTH, 402: QUOTA, 403: AUTH, 407: PROVIDER, 408: TIMEOUT, 409: PROVIDER, 413: OVERFLOW, 425: PROVIDER, 429: RATE,
    499: FailureKind.CONNECTION, 501: FORMAT, 503: OVERLOADED, 504: TIMEOUT, 522: TIMEOUT, 524: TIMEOUT,
    529: OVERLOADED,
}  # fmt: skip
"""Status -> kind, used if neither code nor message is known. Any other 4xx is a FORMAT_ERROR."""

ANYONE = frozenset({408, 409, 413, 425, 429, 499})
"""Statuses below 500 that mean the same from a proxy as from the provider."""

PROXY_ONLY = frozenset({407, 511})
"""Statuses that only a proxy or a network's login page sends."""


def kind_by_status(status: int) -> FailureKind:
    """Return the kind of a status that the provider itself sent."""
    if status in STATUSES:
        return STATUSES[status]
    return FORMAT if 400 <= status < 500 else PROVIDER


def kind_without_verdict(status: int) -> FailureKind:
    """Return the kind of a status that someone else sent. It is always transient, or (413) asks for a shorter request."""
    return STATUSES[status] if status in ANYONE or status in (503, 504, 522, 524, 529) else PROVIDER
