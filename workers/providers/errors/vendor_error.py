"""Parses the error body of any vendor or gateway and finds its failure kind.

The code and the message count more than the status, because the status is ambiguous. A spend cap is a 429 or a 400, a
full window is a 400, 413 or 429, and a gateway may send an error with status 200.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import FailureKind
from midwatch.workers.providers.errors.body_wait import read_body_wait_ms
from midwatch.workers.providers.errors.error_codes import CODES, OVERFLOW, PHRASES, PRECEDENCE, kind_by_status
from midwatch.workers.providers.replies.json_body import read_object

CODE_FIELDS = (
    "code",
    "type",
    "status",
    "reason",
    "error_code",
    "errorCode",
    "errorcode",
    "error_type",
    "__type",
    "Code",
)
MESSAGE_FIELDS = (
    "message", "msg", "error_msg", "error_message", "errorMessage", "status_msg", "detail", "description", "faultstring",
    "Message", "errmsg", "exception", "title", "error", "reason",
)  # fmt: skip
STATUS_FIELDS = ("code", "status", "status_code", "statusCode", "http_status", "httpStatus")
INNER_FIELDS = ("error", "errors", "Error", "base_resp", "fault", "detail", "Output", "response")
"""Fields that may hold the error object, or its text."""

ERROR_FIELDS = ("error", "errors", "Error", "detail", "fault")

RETRY_FLAGS = ("retryable", "is_retryable", "isRetryable", "should_retry", "shouldRetry")
"""Fields that say whether to retry: Cloudflare's and its spellings at other gateways."""

GENERIC_STATUSES = frozenset({400, 500, 502})
"""Statuses that gateways use for any failure behind them. A status inside the body says more."""

_REQUESTED = re.compile(r"limit:?\s*([\d,]+)\b.{0,80}?\brequested:?\s*([\d,]+)", re.IGNORECASE | re.DOTALL)

_DEEPEST = 4
"""How many error objects inside one another are read."""


@dataclass(frozen=True)
class VendorError:
    """The fields of an error body that are used here. A field that the vendor does not send is empty."""

    codes: tuple[str, ...] = ()
    message: str = ""
    status: int | None = None
    """A status inside the body. Gateways send one there when the response's own status is 200."""
    retry_after_ms: int | None = None
    upstream: str = ""
    """The provider behind the gateway that failed, if the gateway names it."""
    should_retry: bool | None = None
    """`retryable` in the body: Cloudflare says so."""
    is_error: bool = False
    """Is there an `error`, a `detail` or a similar field, of any type?"""
    from_cloudflare: bool = False
    """True for an error of Cloudflare itself (an RFC 9457 body), not of the server behind it."""

    @classmethod
    def parse(cls, body: object) -> VendorError:
        """Parse an error body in any known shape. Any other body gives an empty VendorError."""
        objects = list(list_error_objects(body))
        if not objects:
            return cls(message=body if isinstance(body, str) else "")
        outer, inner = objects[0], objects[-1]
        flags = [flag for one in objects for name in RETRY_FLAGS if isinstance(flag := one.get(name), bool)]
        return cls(
            codes=tuple(dict.fromkeys(code for one in reversed(objects) for code in _read_codes(one))),
            message=next(filter(None, (_read_message(one) for one in reversed(objects))), ""),
            status=next(filter(None, (_read_status(one) for one in reversed(objects))), None),
            retry_after_ms=read_body_wait_ms(objects),
            upstream=_read_upstream(objects),
            should_retry=flags[-1] if flags else None,
            is_error=any(one.get(name) for one in objects for name in ERROR_FIELDS),
            from_cloudflare=outer.get("cloudflare_error") is True or inner.get("cloudflare_error") is True,
        )

    @property
    def is_empty(self) -> bool:
        """Does the body say nothing about an error?"""
        return not (self.codes or self.message or self.status or self.is_error)

    def kind(self, status: int) -> FailureKind:
        """Return the failure kind of this error in a response with this status."""
        named = self.named_kind()
        if named is not None:
            return named
        is_inner = self.status is not None and (status < 400 or status in GENERIC_STATUSES)
        return kind_by_status(self.status if is_inner and self.status else status)

    def named_kind(self) -> FailureKind | None:
        """Return the kind that the code or the message names. None if neither is known."""
        if self._exceeds_limit():
            return OVERFLOW
        found = {CODES[code] for code in self.codes if code in CODES}
        found.update(kind for pattern, kind in PHRASES if pattern.search(self.message))
        return next((kind for kind in PRECEDENCE if kind in found), None)

    def _exceeds_limit(self) -> bool:
        """Return True if one request asks for more tokens than the whole limit, so that no wait can help."""
        found = _REQUESTED.search(self.message)
        if found is None:
            return False
        limit, requested = (int(number.replace(",", "")[:15] or 0) for number in found.groups())
        return requested > limit > 0


def list_error_objects(body: object) -> Iterator[Mapping[str, object]]:
    """Yield the error objects of a body, from the outermost to the innermost."""
    for _ in range(_DEEPEST):
        if isinstance(body, list) and body:
            body = body[0]
        if not isinstance(body, Mapping):
            return
        yield body
        inner = next((body[name] for name in INNER_FIELDS if isinstance(body.get(name), (Mapping, list))), None)
        body = _read_inner_text(body) if inner is None else inner


def _read_inner_text(body: Mapping[str, object]) -> JsonObject | None:
    """Read the error of the provider behind a gateway, if the gateway passes it on as text (OpenRouter, LiteLLM, one-api)."""
    metadata = body.get("metadata")
    texts = [
        metadata.get("raw") if isinstance(metadata, Mapping) else None,
        *(body.get(name) for name in MESSAGE_FIELDS),
    ]
    for text in texts:
        if isinstance(text, str) and (start := text.find('{"')) >= 0:
            found = read_object(text[start:].encode("utf-8", "replace"))
            if found is not None and any(name in found for name in (*INNER_FIELDS, *CODE_FIELDS, *MESSAGE_FIELDS)):
                return found
    return None


def _read_codes(one: Mapping[str, object]) -> Iterator[str]:
    for name in CODE_FIELDS:
        value = one.get(name)
        if isinstance(value, str) and value and value != "error" and "://" not in value:
            yield value.rpartition("#")[2].lower()
        elif isinstance(value, int) and not isinstance(value, bool) and value >= 1_000:
            yield str(value)
    if isinstance(number := one.get("status_code"), int) and number >= 1_000:
        yield f"base_resp.{number}"
    details = one.get("details", one.get("detail"))
    for detail in details if isinstance(details, list) else [details]:
        if isinstance(detail, Mapping):
            yield from (
                value.lower() for name in ("error_code", "reason") if isinstance(value := detail.get(name), str)
            )
            if "PerDay" in str(detail.get("violations")):
                yield "insufficient_quota"
    metadata = one.get("metadata")
    if isinstance(metadata, Mapping) and isinstance(code := metadata.get("error_type"), str):
        yield code.lower()


def _read_message(one: Mapping[str, object]) -> str:
    message = next((value for name in MESSAGE_FIELDS if isinstance(value := one.get(name), str) and value.strip()), "")
    for name in () if message else ERROR_FIELDS:
        if isinstance(texts := one.get(name), list):
            message = message or "; ".join(text for text in texts[:5] if isinstance(text, str))
    metadata = one.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    return f"{message}: {raw}" if isinstance(raw, str) and raw.strip() and not raw.lstrip().startswith("{") else message


def _read_status(one: Mapping[str, object]) -> int | None:
    for name in STATUS_FIELDS:
        value = one.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    return None


def _read_upstream(objects: list[Mapping[str, object]]) -> str:
    for one in objects:
        metadata = one.get("metadata")
        for holder in (metadata if isinstance(metadata, Mapping) else {}, one):
            for name in ("provider_name", "provider", "upstream"):
                if isinstance(value := holder.get(name), str) and value:
                    return value[:40]
    return ""
