"""Whatever a tool raised -> the failure that it amounts to: the downstream's news, or the tool's own error.

No HTTP library is imported, so an exception goes by what it carries (a response's status and headers) and by the names
of its classes along their inheritance. Known by a test: requests, httpx, httpx2, urllib3, urllib; by shape: aiohttp.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from midwatch.orchestration.protocol.retry_after import exhausted_reset_ms, retry_after_ms
from midwatch.schemas.failure import Failure, FailureKind

STATUSES = {
    408: FailureKind.PROVIDER_ERROR,
    429: FailureKind.RATE_LIMITED,
    503: FailureKind.OVERLOADED,
    529: FailureKind.OVERLOADED,
}
"""Any other 5xx is a provider_error. Any other status is the tool's own error: nothing that time cures."""

CLASSES = {
    **dict.fromkeys(("TimeoutError", "Timeout", "TimeoutException", "TimeoutExpired"), FailureKind.TIMEOUT),
    **dict.fromkeys(("ConnectTimeout", "ServerTimeoutError"), FailureKind.TIMEOUT),  # connection errors by descent
    **dict.fromkeys(("ConnectionError", "NetworkError", "ClientConnectionError", "ProxyError"), FailureKind.CONNECTION),
    **dict.fromkeys(("NewConnectionError", "gaierror"), FailureKind.CONNECTION),  # the name does not resolve
    **dict.fromkeys(("ProtocolError", "IncompleteRead"), FailureKind.CONNECTION),  # the answer broke off
    **dict.fromkeys(("ChunkedEncodingError", "ClientPayloadError"), FailureKind.CONNECTION),
    "LocalProtocolError": FailureKind.TOOL_ERROR,  # httpx: a ProtocolError, but of our own making
}
"""Class name -> kind: the built-in exceptions, and their like in other libraries. The nearest that is listed counts."""

UNREACHABLE = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH})
"""What the system says of a network, as a plain OSError."""

MAX_CAUSES = 8
"""Causes that are looked at: a chain of them may be a ring."""


@dataclass(frozen=True)
class _Answer:
    """The part of an HTTP response that is looked at."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


def tool_failure(error: BaseException, detail: str) -> Failure:
    """The failure of a tool that raised `error`; what it was raised from (`raise ... from`) counts when itself says nothing."""
    for link in _chain(error):
        answer = _answer(link)
        if answer is not None:
            return _of_answer(answer, detail)
        kind = _of_class(link)
        if kind is not None:
            return Failure(kind=kind, detail=detail)
    return Failure(kind=FailureKind.TOOL_ERROR, detail=detail)


def _of_answer(answer: _Answer, detail: str) -> Failure:
    default = FailureKind.PROVIDER_ERROR if answer.status >= 500 else FailureKind.TOOL_ERROR
    kind = STATUSES.get(answer.status, default)
    if kind is FailureKind.TOOL_ERROR:
        return Failure(kind=kind, detail=detail)
    wait_ms = retry_after_ms(answer.headers)
    if wait_ms is None and kind is FailureKind.RATE_LIMITED:
        wait_ms = exhausted_reset_ms(answer.headers)
    return Failure(kind=kind, detail=detail, retry_after_ms=wait_ms)


def _of_class(error: BaseException) -> FailureKind | None:
    if isinstance(error, OSError) and error.errno in UNREACHABLE:
        return FailureKind.CONNECTION
    return next((CLASSES[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in CLASSES), None)


def _answer(error: BaseException) -> _Answer | None:
    """What the server answered, when the error holds it: as a response, or (aiohttp, urllib) in itself."""
    response = _attribute(error, "response")
    for holder in (response, error):
        headers = _attribute(holder, "headers")
        if holder is error and headers is None:
            continue  # a code alone says nothing: SystemExit has one, and so have the errors of databases
        for name in ("status_code", "status", "code"):  # aiohttp deprecates its `code`, so it comes last
            status = _attribute(holder, name)
            if isinstance(status, int) and 400 <= status < 600:
                return _Answer(int(status), _lower(headers))
    return None


def _lower(headers: object) -> dict[str, str]:
    try:
        items = headers.items()  # type: ignore[attr-defined]
        return {str(name).lower(): str(value) for name, value in items}
    except Exception:  # no headers, or a stand-in of somebody's tests
        return {}


def _attribute(holder: object, name: str) -> object:
    """An attribute, or None when there is none, or reading it fails: a property of a stranger may do anything."""
    try:
        return getattr(holder, name, None)
    except Exception:
        return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, nearest first; the reason that urllib's URLError holds counts as that."""
    link: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if link is None:
            return
        yield link
        reason = _attribute(link, "reason")
        link = reason if isinstance(reason, BaseException) else link.__cause__
