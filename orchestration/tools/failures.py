"""Turn an exception that a tool raised into a failure: one of its downstream, or the tool's own error.

No HTTP library is imported. An exception is recognized by its attributes (a response's status and headers) and by the names
of its class and base classes. Tested with requests, httpx, httpx2, urllib3 and urllib. For aiohttp the test simulates the error.
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
"""HTTP status -> kind. Any other 5xx is a provider_error. Any other status is the tool's own error, and not transient."""

CLASSES = {
    **dict.fromkeys(("TimeoutError", "Timeout", "TimeoutException", "TimeoutExpired"), FailureKind.TIMEOUT),
    **dict.fromkeys(
        ("ConnectTimeout", "ServerTimeoutError"), FailureKind.TIMEOUT
    ),  # by inheritance, these are connection errors
    **dict.fromkeys(("ConnectionError", "NetworkError", "ClientConnectionError", "ProxyError"), FailureKind.CONNECTION),
    **dict.fromkeys(("NewConnectionError", "gaierror"), FailureKind.CONNECTION),  # the host name can't be resolved
    **dict.fromkeys(("ProtocolError", "IncompleteRead"), FailureKind.CONNECTION),  # the answer broke off
    **dict.fromkeys(("ChunkedEncodingError", "ClientPayloadError"), FailureKind.CONNECTION),
    "LocalProtocolError": FailureKind.TOOL_ERROR,  # httpx: a ProtocolError of the client, not the server
}
"""Class name -> kind: built-in exceptions, and similar ones of other libraries. The nearest listed base class decides."""

UNREACHABLE = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH})
"""Error numbers of an unreachable network. The system reports them as a plain OSError."""

MAX_CAUSES = 8
"""Most causes to follow, since a chain of causes may be a ring."""


@dataclass(frozen=True)
class _Answer:
    """The part of an HTTP response that matters here."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


def tool_failure(error: BaseException, detail: str) -> Failure:
    """The failure of a tool that raised `error`. If the error is unknown, its causes (`raise ... from`) are tried."""
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
    """The server's answer, if the error holds it: as a `response`, or (aiohttp, urllib) in its own attributes."""
    response = _attribute(error, "response")
    for holder in (response, error):
        headers = _attribute(holder, "headers")
        if holder is error and headers is None:
            continue  # a code alone is no answer: SystemExit and database errors have one, too
        for name in ("status_code", "status", "code"):  # aiohttp deprecates its `code`, so it comes last
            status = _attribute(holder, name)
            if isinstance(status, int) and 400 <= status < 600:
                return _Answer(int(status), _lower(headers))
    return None


def _lower(headers: object) -> dict[str, str]:
    try:
        items = headers.items()  # type: ignore[attr-defined]
        return {str(name).lower(): str(value) for name, value in items}
    except Exception:  # no headers, or a mock in a test
        return {}


def _attribute(holder: object, name: str) -> object:
    """An attribute, or None if it is missing or can't be read: a property of unknown code may raise anything."""
    try:
        return getattr(holder, name, None)
    except Exception:
        return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, the nearest first. The `reason` of urllib's URLError counts as a cause."""
    link: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if link is None:
            return
        yield link
        reason = _attribute(link, "reason")
        link = reason if isinstance(reason, BaseException) else link.__cause__
