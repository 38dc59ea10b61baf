"""Whatever a call raised -> one `Failure`. The exception goes no further: it holds the key and the prompt.

The SDKs' exceptions are told apart by class name along their inheritance, so that classifying an error of one SDK
does not import the other; a test walks every exception class that either of them exports.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Protocol, cast

from midwatch.orchestration.protocol.retry_after import exhausted_reset_ms, retry_after_ms
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.workers.providers.errors.scrub import scrub
from midwatch.workers.providers.errors.vendor_error import VendorError
from midwatch.workers.providers.read_json import BadReply, ErrorReply
from midwatch.workers.providers.turns import Unsendable

CLASSES: dict[str, FailureKind] = {
    "APITimeoutError": FailureKind.TIMEOUT,
    "TimeoutException": FailureKind.TIMEOUT,
    "TimeoutError": FailureKind.TIMEOUT,
    "SoftTimeLimitExceeded": FailureKind.TIMEOUT,
    "APIConnectionError": FailureKind.CONNECTION,
    "TransportError": FailureKind.CONNECTION,
    "DecodingError": FailureKind.CONNECTION,
    "StreamError": FailureKind.CONNECTION,
    "SSEError": FailureKind.CONNECTION,
    "WebSocketConnectionClosedError": FailureKind.CONNECTION,
    "WebSocketQueueFullError": FailureKind.CONNECTION,
    "JSONDecodeError": FailureKind.CONNECTION,
    "ConnectionError": FailureKind.CONNECTION,
    "LocalProtocolError": FailureKind.INTERNAL,
    "UnsupportedProtocol": FailureKind.INTERNAL,
    "InvalidURL": FailureKind.INTERNAL,
    "TooManyRedirects": FailureKind.PROVIDER_ERROR,
    "APIResponseValidationError": FailureKind.PROVIDER_ERROR,
    "RetryableError": FailureKind.PROVIDER_ERROR,
    "CredentialsError": FailureKind.AUTH_ERROR,
    "WorkloadIdentityError": FailureKind.AUTH_ERROR,
    "SubjectTokenProviderError": FailureKind.AUTH_ERROR,
    "LengthFinishReasonError": FailureKind.FORMAT_ERROR,
    "ContentFilterFinishReasonError": FailureKind.REFUSED,
    "InvalidWebhookSignatureError": FailureKind.INTERNAL,
}
"""Class name -> kind, for exceptions without a response. The nearest ancestor that is listed counts."""

NEVER_SENT = frozenset(
    {
        "Unsendable",
        "ConnectError",  # refused, unreachable, no such name, no TLS
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",  # the proxy would not open the tunnel
        "UnsupportedProtocol",
        "InvalidURL",
        "LocalProtocolError",  # of a request whose body is bytes: its headers can't be written
    }
)
"""Classes of errors that end a call before its first byte is written. Any other may come after it."""


class _Response(Protocol):
    """The part of an HTTP response that is looked at."""

    status_code: int
    content: bytes


@dataclass(frozen=True)
class Circumstances:
    """What is known of a call beside its error: what must not be quoted, and how long it might take."""

    provider: str
    timeout_s: float
    secrets: tuple[str, ...] = field(default=(), repr=False)
    said: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of the response, when one came: an error, or a 200 that was no answer."""


def failure(error: BaseException, call: Circumstances) -> Failure:
    """The failure that `error` amounts to; INTERNAL when it is none that a provider call can end in."""
    if isinstance(error, BadReply):
        return _failure(error.kind, error.detail, call)
    if isinstance(error, ErrorReply):
        return _of_body(error.body, call)
    if isinstance(error, Unsendable):
        return _failure(error.kind, str(error), call)
    response = getattr(error, "response", None)
    if getattr(response, "status_code", 0) >= 300:
        return _of_response(cast("_Response", response), call)
    kind = class_kind(error)
    if kind is FailureKind.TIMEOUT:
        return Failure(kind=kind, detail=f"{call.provider}: no complete answer within {call.timeout_s:g} s")
    root = tuple(_chain(error))[-1]
    if known_class(root) is None:
        # Not a client's exception: its message may quote anything (pydantic's quotes the value), its place can't.
        return _failure(kind, f"{type(root).__name__} at {_place(root)}", call)
    return _failure(kind, f"{type(root).__name__}: {_text(root)}", call)


def class_kind(error: BaseException) -> FailureKind:
    """The kind of an exception by the class of what caused it, as far as that is known, or by its own."""
    names = [known_class(link) for link in _chain(error)]
    kinds = [CLASSES[name] for name in names if name is not None]
    if FailureKind.TIMEOUT in kinds:
        return FailureKind.TIMEOUT
    return kinds[-1] if kinds else FailureKind.INTERNAL


def never_sent(error: BaseException) -> bool:
    """True when the call certainly never reached the provider, which has then not counted it either."""
    return any(cls.__name__ in NEVER_SENT for link in _chain(error) for cls in type(link).__mro__)


def known_class(error: BaseException) -> str | None:
    """The nearest of an exception's classes that is listed."""
    return next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in CLASSES), None)


def _of_body(body: object, call: Circumstances) -> Failure:
    said = VendorError.read(body)
    return _failure(said.kind(200), _detail(said, said.status or 200), call, said.retry_after_ms)


def _of_response(response: _Response, call: Circumstances) -> Failure:
    try:
        body: object = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    said = VendorError.read(body)
    status = response.status_code
    return _failure(said.kind(status), _detail(said, status), call, said.retry_after_ms)


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's own id of the call: Anthropic's header, or OpenAI's."""
    found = headers.get("request-id") or headers.get("x-request-id")
    return None if found is None else "".join(char for char in found[:128] if char.isprintable())


def _detail(said: VendorError, status: int) -> str:
    codes = "/".join(dict.fromkeys(said.codes))
    return " ".join(part for part in (str(status), codes, said.message or "(no message)") if part)


def _failure(kind: FailureKind, detail: str, call: Circumstances, said_ms: int | None = None) -> Failure:
    """`said_ms` is a wait that the body asks for; a header's word counts more, a limit's reset time less."""
    wait_ms = retry_after_ms(call.headers)
    if wait_ms is None:
        wait_ms = said_ms
    if wait_ms is None and kind is FailureKind.RATE_LIMITED:
        wait_ms = exhausted_reset_ms(call.headers)
    text = scrub(f"{call.provider}: {detail}", secrets=call.secrets, said=call.said)
    return Failure(kind=kind, detail=text, retry_after_ms=wait_ms, request_id=request_id(call.headers))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an SDK's __str__ may fail; classifying must not
        return ""


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, nearest first; bounded, because a chain may be a ring."""
    link: BaseException | None = error
    for _ in range(8):
        if link is None:
            return
        yield link
        link = link.__cause__
