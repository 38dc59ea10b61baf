"""Read the headers of a response: the wait that the server asks for, and its rate limits.

The names of the headers must be in lower case, or the mapping must ignore case.

Sources: RFC 9110 (`Retry-After`); the IETF's RateLimit drafts; the SDKs of OpenAI and Anthropic (`retry-after-ms`,
`x-should-retry`); Azure (`x-ms-retry-after-ms`); Cerebras, Mistral, Groq, Together, Fireworks, SambaNova, OpenRouter,
GitHub, Discord and Kong (`x-ratelimit-*`); Anthropic (`anthropic-ratelimit-*`, also its `unified` and `priority` limits); AWS's
SDKs (`x-amz-retry-after`, in milliseconds); gRPC (`grpc-retry-pushback-ms`); LiteLLM (`llm_provider-*`: its provider's headers).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from midwatch.orchestration.protocol.named_times import MAX_WAIT_MS, milliseconds, wait_ms
from midwatch.orchestration.protocol.quota_fields import read_count, read_quotas

__all__ = ["MAX_WAIT_MS", "exhausted_reset_ms", "ratelimit", "retry_after_ms", "should_retry"]

IN_MS = ("retry-after-ms", "x-ms-retry-after-ms", "x-retry-after-ms", "x-amz-retry-after", "grpc-retry-pushback-ms")
IN_ANY_FORM = (
    "retry-after", "x-retry-after", "x-ratelimit-retry-after", "x-rate-limit-retry-after", "retry-after-seconds",
    "llm_provider-retry-after",
)  # fmt: skip

LIMITING = ("ratelimit", "rate-limit", "tokenlimit", "retry-after", "anthropic-priority")
"""A header whose name contains one of these tells something about limits or waits."""


def ratelimit(headers: Mapping[str, str]) -> dict[str, str]:
    """The rate-limit headers as they came, names in lower case."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in lower.items() if any(word in name for word in LIMITING)}


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """The wait that the server asks for: in milliseconds, else in any other form.

    A header that can't be read is ignored. The longest wait is `MAX_WAIT_MS`; the coordinator cuts it to `pause_max_s`.
    """
    waits = [milliseconds(headers.get(name)) for name in IN_MS]
    waits += [_read_retry_after(headers.get(name), headers.get("date")) for name in IN_ANY_FORM]
    return next((wait for wait in waits if wait is not None), None)


def exhausted_reset_ms(headers: Mapping[str, str]) -> int | None:
    """The wait until all exhausted limits are refilled. It is used after a 429 that names no wait.

    If the server names resets but no remaining amounts, the nearest reset counts. A wait that is too short costs one
    refused call. The longest reset may belong to a daily limit.
    """
    limits = ratelimit(headers)
    date = headers.get("date")
    quotas = read_quotas(limits)
    waits = [quota.reset_ms for quota in quotas if quota.remaining == 0 and quota.reset_ms is not None]
    waits += [wait for reset in _exhausted(limits) if (wait := wait_ms(reset, date)) is not None]
    if waits:
        return max(waits)
    if any("remaining" in name for name in limits) or any(quota.remaining is not None for quota in quotas):
        return None
    resets = [wait_ms(value, date) for name, value in limits.items() if "reset" in name]
    return min((wait for wait in resets if wait is not None), default=None)


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what the server says about a retry. None if it says nothing."""
    return {"true": True, "false": False}.get((headers.get("x-should-retry") or "").strip().lower())


def _read_retry_after(text: str | None, date: str | None) -> int | None:
    """Read one header. If two were sent and joined by a comma, the longer wait counts."""
    wait = wait_ms(text, date)
    if wait is None and text and text.count(",") == 1:
        waits = [wait_ms(part, date) for part in text.split(",")]
        return None if None in waits else max(wait for wait in waits if wait is not None)
    return wait


def _exhausted(limits: Mapping[str, str]) -> Iterator[str]:
    """Yield the reset of each limit that is used up, as the server wrote it."""
    for name, value in limits.items():
        if "remaining" in name and read_count(value) == 0:
            resets = (name.replace("remaining", "reset-after"), name.replace("remaining", "reset"))
            yield from [limits[reset] for reset in resets if reset in limits][:1]
        elif name.endswith("-status") and value.strip().lower() == "rejected":
            yield from [limits[reset] for reset in [name.removesuffix("status") + "reset"] if reset in limits]
