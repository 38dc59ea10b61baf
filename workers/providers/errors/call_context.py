"""The data of a call that its failure needs. They make a `Failure` without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from midwatch.orchestration.protocol.retry_after import retry_after_ms
from midwatch.schemas.failure import Failure, FailureKind, RetryAdvice
from midwatch.workers.providers.errors.scrub import scrub

REQUEST_IDS = ("request-id", "x-request-id", "apim-request-id", "x-amzn-requestid", "x-goog-request-id", "cf-ray")
"""Headers with the id of a call: Anthropic's, OpenAI's, Azure's, AWS's, Google's, Cloudflare's."""


@dataclass(frozen=True)
class CallContext:
    """The data about a call that its failure needs: the timeout, and the text that must not be quoted."""

    provider: str
    timeout_s: float
    secrets: tuple[str, ...] = field(default=(), repr=False)
    request_text: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers of the response, if there was one: an error, or a 200 that can't be used."""
    status: int | None = None
    """Status of that response."""


def build_failure(
    kind: FailureKind,
    detail: str,
    call: CallContext,
    *,
    source: str = "",
    wait_ms: int | None = None,
    advice: RetryAdvice | None = None,
) -> Failure:
    """Build a Failure. `source` says who answered, by the headers. A wait in the headers wins over `wait_ms`."""
    named_ms = retry_after_ms(call.headers)
    prefix = f"{call.provider}: {source}"
    return Failure(
        kind=kind,
        detail=scrub(detail, secrets=call.secrets, request_text=call.request_text, prefix=prefix),
        retry_after_ms=wait_ms if named_ms is None else named_ms,
        request_id=read_request_id(call.headers),
        status=call.status,
        advice=advice,
    )


def read_request_id(headers: Mapping[str, str]) -> str | None:
    """Read the id by which the provider finds the call."""
    found = next((value for name in REQUEST_IDS if (value := headers.get(name))), None)
    return None if found is None else "".join(char for char in found[:128] if char.isprintable())
