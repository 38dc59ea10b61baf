"""Turns an exception of a provider call into a `Failure`. The exception is not passed on: it holds the key and prompt.

An SDK's exception is recognised by the names of its class and parent classes, so that no SDK has to be imported. A
test covers every exception class that the SDKs export.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import PurePath
from typing import Protocol, cast

from midwatch.schemas.failure import Failure, FailureKind, RetryAdvice
from midwatch.workers.providers.errors.answers import classify_answer, classify_body, describe_source
from midwatch.workers.providers.errors.call_context import CallContext, build_failure
from midwatch.workers.providers.read_json import BadReply, ErrorReply, NoApiReply
from midwatch.workers.providers.replies.json_body import read_object
from midwatch.workers.providers.request_turns import Unsendable

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
"""Class name -> kind, for exceptions without a response. The first listed class in the MRO counts."""

NEVER_SENT = frozenset(
    {
        "Unsendable",
        "ConnectError",  # connection refused, host unreachable or unknown, TLS failed
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",  # the proxy did not open the tunnel
        "UnsupportedProtocol",
        "InvalidURL",
        "LocalProtocolError",  # the headers can't be written; the body is bytes, so it can't cause this error
    }
)
"""Errors that end a call before its first byte is written. Any other error may happen later."""


class _Response(Protocol):
    """The part of an HTTP response that is used here."""

    status_code: int
    content: bytes


def classify_error(error: BaseException, call: CallContext) -> Failure:
    """Turn an exception into a Failure. Its kind is INTERNAL if CLASSES lists none of the exception's classes."""
    if isinstance(error, BadReply):
        return build_failure(error.kind, f"{error.detail} ({describe_source(call)})", call)
    if isinstance(error, ErrorReply):
        return classify_body(error.body, call)
    if isinstance(error, NoApiReply):
        return classify_answer(200, error.content, call)
    if isinstance(error, Unsendable):
        return build_failure(error.kind, str(error), call)
    response = getattr(error, "response", None)
    if getattr(response, "status_code", 0) >= 300:
        answer = cast("_Response", response)
        return classify_answer(answer.status_code, answer.content, call)
    kind = kind_by_class(error)
    if kind is FailureKind.TIMEOUT:
        return Failure(kind=kind, detail=f"{call.provider}: no complete answer within {call.timeout_s:g} s")
    root = tuple(_walk_causes(error))[-1]
    if find_listed_class(root) is None:
        # The exception is not an HTTP client's. Its message may quote content (pydantic quotes the value), so only the
        # place in the code is shown.
        return build_failure(kind, f"{type(root).__name__} at {_find_place(root)}", call)
    detail = f"{type(root).__name__}: {_read_message(root)}"
    refused_by_proxy = any(cls.__name__ == "ProxyError" for cls in type(root).__mro__)
    return build_failure(kind, detail, call, advice=RetryAdvice.SLOW if refused_by_proxy else None)


def read_error_body(error: BaseException) -> object:
    """Return the JSON of an error's body. None if it has none."""
    if isinstance(error, ErrorReply):
        return error.body
    content = getattr(getattr(error, "response", None), "content", None)
    return read_object(content) if isinstance(content, bytes) else None


def kind_by_class(error: BaseException) -> FailureKind:
    """Find the kind of an exception by its class and its causes: a timeout first, else the deepest listed cause."""
    names = [find_listed_class(link) for link in _walk_causes(error)]
    kinds = [CLASSES[name] for name in names if name is not None]
    if FailureKind.TIMEOUT in kinds:
        return FailureKind.TIMEOUT
    return kinds[-1] if kinds else FailureKind.INTERNAL


def was_never_sent(error: BaseException) -> bool:
    """Return True if the call certainly did not reach the provider. Then the provider has not counted it."""
    return any(cls.__name__ in NEVER_SENT for link in _walk_causes(error) for cls in type(link).__mro__)


def find_listed_class(error: BaseException) -> str | None:
    """Find the first class in the exception's MRO that is listed in CLASSES."""
    return next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in CLASSES), None)


def _read_message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an SDK's __str__ may fail, but classification must succeed
        return ""


def _find_place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"


def _walk_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, nearest first. At most 8, because a chain of causes may be a cycle."""
    link: BaseException | None = error
    for _ in range(8):
        if link is None:
            return
        yield link
        link = link.__cause__
