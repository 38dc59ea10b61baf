"""Classifies what a server answered in place of a model's reply, and says who answered.

Only the provider's API may end a job: it answers in JSON. A web page, plain text or an empty body comes from something in
front of it (a firewall's challenge, a load balancer, a corporate proxy, a hotel's login page). Such an answer says
nothing about a key or a request. It is transient, and often lasts for minutes.
"""

from __future__ import annotations

from dataclasses import replace

from midwatch.orchestration.protocol.retry_after import exhausted_reset_ms, retry_after_ms, should_retry
from midwatch.schemas.failure import Failure, FailureKind, RetryAdvice
from midwatch.schemas.policy import TRANSIENT
from midwatch.workers.providers.errors.body_wait import read_spoken_wait_ms
from midwatch.workers.providers.errors.call_context import CallContext, build_failure
from midwatch.workers.providers.errors.error_codes import PROXY_ONLY, kind_without_verdict
from midwatch.workers.providers.errors.page import Page, read_page
from midwatch.workers.providers.errors.responder import is_firewall, list_ids, name_responder
from midwatch.workers.providers.errors.vendor_error import VendorError
from midwatch.workers.providers.replies.json_body import decode, read_object

HINTS = {
    404: "check the base URL",
    405: "check the base URL",
    407: "the proxy wants a login: check HTTPS_PROXY",
    511: "the network wants a login",
}
"""Advice for an operator, by status."""

WAITING = (FailureKind.RATE_LIMITED, FailureKind.OVERLOADED)
"""Kinds after which a wait in the message for people is believed."""

MAX_BODY_CHARS = 200
"""Most characters of a body without a message that are quoted."""


def classify_body(body: object, call: CallContext) -> Failure:
    """Classify an error in a reply with status 200."""
    error = VendorError.parse(body)
    # Its own status decides, also whether the request was refused for its form.
    inner = replace(call, status=error.status or call.status)
    return _classify_error(error, 200, error.status or 200, "", inner)


def classify_answer(status: int, content: bytes, call: CallContext) -> Failure:
    """Classify a response with an error status, or a 200 that is no JSON."""
    content_type = call.headers.get("content-type", "")
    text = decode(content[:100_000], content_type)
    body = read_object(content, content_type)
    error = _with_error_type(VendorError.parse(body), call)
    speaks_for_provider = body is not None and not error.is_empty and not error.from_cloudflare
    page = read_page(text)
    if body is None and not page.is_html and status >= 300:
        plain = VendorError(message=page.words[:1_000])
        if plain.named_kind() is not None:  # a small server that refuses in plain text
            error, speaks_for_provider = plain, True
    if status in PROXY_ONLY or is_firewall(call.headers) or not speaks_for_provider:
        return _classify_stranger(status, error, page, call)
    return _classify_error(error, status, status, text, call)


def _classify_error(error: VendorError, status: int, shown_status: int, text: str, call: CallContext) -> Failure:
    """Classify an error that the provider, or the gateway in its place, reports."""
    kind = error.kind(status)
    if kind is FailureKind.AUTH_ERROR and status == 403 and error.named_kind() is None and _names_a_limit(error, call):
        kind = FailureKind.RATE_LIMITED
    kind, advice = _apply_retry_advice(kind, error, call)
    codes = "/".join(code for code in error.codes if code != str(shown_status))
    upstream = f"(upstream {error.upstream})" if error.upstream else ""
    message = error.message or f"(no message; {describe_source(call)}) {_shorten(text)}"
    detail = " ".join(part for part in (str(shown_status), codes, upstream, message) if part)
    return build_failure(kind, detail, call, wait_ms=_find_wait_ms(kind, error, call), advice=advice)


def _classify_stranger(status: int, error: VendorError, page: Page, call: CallContext) -> Failure:
    """Classify an answer that is not the provider's."""
    kind = kind_without_verdict(status)
    kind, advice = _apply_retry_advice(kind, error, call)
    if advice is None and status < 500 and kind is FailureKind.PROVIDER_ERROR:
        advice = RetryAdvice.SLOW
    ids = ", ".join(part for part in (list_ids(call.headers), page.shown_id) if part)
    where = f", redirects to {_name_host(call)}" if 300 <= status < 400 else ""
    responder = name_responder(call.headers)
    source = str(status) + (f" from {responder}" if responder else "") + (f" ({ids[:90]})" if ids else "")
    source += ", not from the provider's API"
    title = f' "{page.title}"' if page.title else ""
    # Plain text with status 200 may be a model's answer, which a failure must not quote.
    words = "" if status < 300 and not page.is_html else error.message or page.words
    hint = f"{HINTS[status]}. " if status in HINTS else ""
    detail = f"{where}: {hint}{_name_type(call)}{title}: {_shorten(words) or '(empty)'}"
    if 200 <= status < 300:
        detail = f"{where}: expected JSON, got {_name_type(call)}{title} {_shorten(words)}"
    error = error if error.message else replace(error, message=page.words[:2_000])
    return build_failure(kind, detail, call, source=source, wait_ms=_find_wait_ms(kind, error, call), advice=advice)


def _names_a_limit(error: VendorError, call: CallContext) -> bool:
    """Does a 403 tell when to come back? GitHub's limits do, and no refusal of a key does."""
    waits = (error.retry_after_ms, retry_after_ms(call.headers), exhausted_reset_ms(call.headers))
    return any(wait is not None for wait in waits)


def _with_error_type(error: VendorError, call: CallContext) -> VendorError:
    """Add the exception's name that AWS sends in a header, in front of a colon and an address."""
    name = call.headers.get("x-amzn-errortype", "").partition(":")[0].strip().lower()
    return replace(error, codes=(*error.codes, name)) if name else error


def _apply_retry_advice(
    kind: FailureKind, error: VendorError, call: CallContext
) -> tuple[FailureKind, RetryAdvice | None]:
    """Apply what the server says about a retry, in a header or in a field of the body.

    True makes a final error transient. False leaves a transient error without retries. A full window keeps its kind:
    the request is shortened, and then sent again.
    """
    said = should_retry(call.headers)
    said = error.should_retry if said is None else said
    if said is True and kind not in TRANSIENT and kind is not FailureKind.CONTEXT_OVERFLOW:
        is_quota = kind is FailureKind.QUOTA_EXHAUSTED
        return FailureKind.RATE_LIMITED if is_quota else FailureKind.PROVIDER_ERROR, None
    return kind, RetryAdvice.LAST if said is False and kind in TRANSIENT else None


def _find_wait_ms(kind: FailureKind, error: VendorError, call: CallContext) -> int | None:
    """Find the wait: from a field of the body, else from the reset of the exhausted limits, else from the message."""
    wait_ms = error.retry_after_ms
    if wait_ms is None and kind is FailureKind.RATE_LIMITED:
        wait_ms = exhausted_reset_ms(call.headers)
    if wait_ms is None and kind in WAITING:
        wait_ms = read_spoken_wait_ms(error.message)
    return wait_ms


def _name_type(call: CallContext) -> str:
    return call.headers.get("content-type", "").partition(";")[0].strip()[:40] or "no content type"


def describe_source(call: CallContext) -> str:
    """Say what was received and from whom: `application/json from cloudflare`."""
    responder = name_responder(call.headers)
    return _name_type(call) + (f" from {responder}" if responder else "")


def _name_host(call: CallContext) -> str:
    """Name the host of a redirect. Its path and its query may hold a token."""
    location = call.headers.get("location", "")
    scheme, found, rest = location.partition("://")
    return f"{scheme[:10]}://{rest.partition('/')[0].rpartition('@')[2][:60]}" if found else "another path"


def _shorten(text: str) -> str:
    return " ".join(text.split())[:MAX_BODY_CHARS]
