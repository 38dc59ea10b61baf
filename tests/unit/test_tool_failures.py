"""Classify a tool's exception, tested with the exceptions of the libraries that tools use."""

from __future__ import annotations

import asyncio
import email.message
import errno
import http.client
import io
import socket
import subprocess
import urllib.error
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest
import redis
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from midwatch import tool
from midwatch.orchestration.errors import ToolFailed
from midwatch.orchestration.protocol.retry_after import MAX_WAIT_MS
from midwatch.orchestration.tools.failures import tool_failure
from midwatch.orchestration.tools.run import run_tool
from midwatch.schemas.failure import Failure, FailureKind

URL = "http://jira.test/issue/7"


def of_requests(status: int, headers: dict[str, str]) -> Exception:
    response = requests.Response()
    response.status_code, response.url = status, URL
    response.headers.update(headers)
    with pytest.raises(requests.HTTPError) as caught:
        response.raise_for_status()
    return caught.value


def of_httpx(status: int, headers: dict[str, str]) -> Exception:
    response = httpx.Response(status, headers=headers, request=httpx.Request("GET", URL))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        response.raise_for_status()
    return caught.value


def of_httpx2(status: int, headers: dict[str, str]) -> Exception:
    response = httpx2.Response(status, headers=headers, request=httpx2.Request("GET", URL))
    with pytest.raises(httpx2.HTTPStatusError) as caught:
        response.raise_for_status()
    return caught.value


def of_urllib(status: int, headers: dict[str, str]) -> Exception:
    message = email.message.Message()
    for name, value in headers.items():
        message[name] = value
    return urllib.error.HTTPError(URL, status, "said so", message, io.BytesIO())


class ClientResponseError(Exception):
    """Has the shape of aiohttp's error: its own status and headers, and a deprecated `code` that must not be read."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers

    @property
    def code(self) -> int:
        raise DeprecationWarning("use status")


LIBRARIES: list[Callable[[int, dict[str, str]], Exception]] = [
    of_requests,
    of_httpx,
    of_httpx2,
    of_urllib,
    ClientResponseError,
]


def kind_of(error: BaseException) -> FailureKind:
    return tool_failure(error, "detail").kind


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.__name__)
def test_a_response_is_classified_by_its_status(library: Callable[[int, dict[str, str]], Exception]) -> None:
    """Rate limits, overload and server errors are failures of the downstream. Any other status is the tool's own error."""
    kinds = {status: kind_of(library(status, {})) for status in (400, 401, 403, 404, 408, 409, 422, 429, 500, 501, 502)}
    assert kinds == {
        **dict.fromkeys((400, 401, 403, 404, 409, 422), FailureKind.TOOL_ERROR),
        **dict.fromkeys((408, 500, 501, 502), FailureKind.PROVIDER_ERROR),
        429: FailureKind.RATE_LIMITED,
    }
    assert {kind_of(library(status, {})) for status in (503, 529)} == {FailureKind.OVERLOADED}


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.__name__)
@pytest.mark.parametrize(
    ("status", "headers", "wait_ms"),
    [
        (429, {"Retry-After": "7"}, 7_000),
        (429, {"Retry-After": "1000000000000"}, MAX_WAIT_MS),
        (429, {"Retry-After": "1e12"}, None),
        (429, {"Retry-After": "Tue, 24 Nov 2026 10:00:30 GMT", "Date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 30_000),
        (429, {"X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "6m0s"}, 360_000),
        (503, {"retry-after": "0.5"}, 500),
        (500, {"retry-after": "3"}, 3_000),
        (503, {}, None),
        (429, {"Retry-After": "soon"}, None),
        (404, {"Retry-After": "9"}, None),
    ],
)
def test_a_requested_wait_is_kept(
    library: Callable[[int, dict[str, str]], Exception], status: int, headers: dict[str, str], wait_ms: int | None
) -> None:
    """The header may have any form and case. The tool's own error has no wait."""
    assert tool_failure(library(status, headers), "detail").retry_after_ms == wait_ms


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
POOL: Any = None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError("late"), FailureKind.TIMEOUT),
        (OSError(errno.ETIMEDOUT, "late"), FailureKind.TIMEOUT),
        (subprocess.TimeoutExpired("sleep", 1), FailureKind.TIMEOUT),
        (requests.ReadTimeout(), FailureKind.TIMEOUT),
        (requests.ConnectTimeout(), FailureKind.TIMEOUT),
        (httpx.ReadTimeout(""), FailureKind.TIMEOUT),
        (httpx2.PoolTimeout(""), FailureKind.TIMEOUT),
        (redis.TimeoutError(), FailureKind.TIMEOUT),
        (urllib3.exceptions.ReadTimeoutError(POOL, URL, ""), FailureKind.TIMEOUT),
        (urllib3.exceptions.MaxRetryError(POOL, URL, urllib3.exceptions.ConnectTimeoutError()), FailureKind.TIMEOUT),
        (urllib.error.URLError(TimeoutError()), FailureKind.TIMEOUT),
        (REFUSED, FailureKind.CONNECTION),
        (BrokenPipeError(), FailureKind.CONNECTION),
        (OSError(errno.EHOSTUNREACH, "no route to host"), FailureKind.CONNECTION),
        (socket.gaierror(socket.EAI_AGAIN, "no such name"), FailureKind.CONNECTION),
        (http.client.RemoteDisconnected(""), FailureKind.CONNECTION),
        (http.client.IncompleteRead(b""), FailureKind.CONNECTION),
        (requests.ConnectionError(), FailureKind.CONNECTION),
        (requests.exceptions.ProxyError(), FailureKind.CONNECTION),
        (requests.exceptions.ChunkedEncodingError(), FailureKind.CONNECTION),
        (httpx.ConnectError(""), FailureKind.CONNECTION),
        (httpx.RemoteProtocolError(""), FailureKind.CONNECTION),
        (httpx2.ReadError(""), FailureKind.CONNECTION),
        (redis.ConnectionError(), FailureKind.CONNECTION),
        (urllib3.exceptions.ProtocolError(), FailureKind.CONNECTION),
        (urllib3.exceptions.NameResolutionError("jira.test", POOL, socket.gaierror()), FailureKind.CONNECTION),
        (urllib.error.URLError(REFUSED), FailureKind.CONNECTION),
        (caused(RuntimeError("jira is away"), REFUSED), FailureKind.CONNECTION),
        (caused(RuntimeError("jira is busy"), of_requests(503, {})), FailureKind.OVERLOADED),
        (ValueError("no such order"), FailureKind.TOOL_ERROR),
        (FileNotFoundError(errno.ENOENT, "nothing there"), FailureKind.TOOL_ERROR),
        (httpx.UnsupportedProtocol(""), FailureKind.TOOL_ERROR),
        (httpx2.LocalProtocolError("bad header"), FailureKind.TOOL_ERROR),
        (requests.exceptions.InvalidURL(), FailureKind.TOOL_ERROR),
        (redis.ResponseError("WRONGTYPE"), FailureKind.TOOL_ERROR),
        (urllib.error.URLError("unknown url type"), FailureKind.TOOL_ERROR),
        (asyncio.CancelledError(), FailureKind.TOOL_ERROR),
        (SystemExit(503), FailureKind.TOOL_ERROR),
        (caused(of_requests(404, {}), REFUSED), FailureKind.TOOL_ERROR),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}" if isinstance(value, BaseException) else "",
)
def test_an_exception_without_a_response_is_classified_by_its_class(error: BaseException, kind: FailureKind) -> None:
    """Timeouts and connection errors of every library are known by the names of their base classes, or by their cause."""
    assert kind_of(error) is kind


class Nasty(Exception):
    """Raises on every attribute access."""

    def __getattr__(self, name: str) -> object:
        raise KeyError(name)


@pytest.mark.parametrize("value", [None, 7, "429", True, object(), {"Error": {"Code": "Throttling"}}])
def test_a_false_response_is_ignored(value: object) -> None:
    """An exception may have any values under these names. None of them breaks the classification."""
    error = Exception("odd")
    error.response = value  # type: ignore[attr-defined]
    assert kind_of(error) is FailureKind.TOOL_ERROR
    odd = ClientResponseError(value, value)  # type: ignore[arg-type]
    assert kind_of(odd) is FailureKind.TOOL_ERROR
    assert kind_of(Nasty()) is FailureKind.TOOL_ERROR


def test_a_ring_of_causes_ends() -> None:
    """A chain of causes is followed only to a limit."""
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert kind_of(first) is FailureKind.TOOL_ERROR


@given(st.dictionaries(st.text(max_size=20) | st.just("Retry-After"), st.text(max_size=20)), st.integers(400, 599))
def test_any_headers_are_read(headers: dict[str, str], status: int) -> None:
    """Any header gives a failure, and never a negative or endless wait."""
    wait_ms = tool_failure(ClientResponseError(status, headers), "detail").retry_after_ms
    assert wait_ms is None or 0 <= wait_ms <= MAX_WAIT_MS


def test_an_http_error_of_a_tool_is_classified() -> None:
    """A tool only needs `raise_for_status()`: the failure has kind, wait and message, and the cause is kept for logs."""

    @tool
    def create_issue(title: str) -> str:
        """Create an issue."""
        raise of_requests(429, {"Retry-After": "20"})

    with pytest.raises(ToolFailed) as caught:
        run_tool(create_issue, {"title": "x"})
    assert caught.value.failure == Failure(
        kind=FailureKind.RATE_LIMITED,
        detail=f"HTTPError: 429 Client Error: None for url: {URL}",
        retry_after_ms=20_000,
    )
    assert isinstance(caught.value.__cause__, requests.HTTPError)


def test_a_tool_can_raise_its_own_failure() -> None:
    """A `ToolFailed` of the tool is passed on unchanged, for any cause."""

    @tool
    def create_issue(title: str) -> str:
        """Create an issue."""
        full = Failure(kind=FailureKind.QUOTA_EXHAUSTED, detail="the plan's issues are used up")
        raise ToolFailed(full) from of_requests(503, {})

    with pytest.raises(ToolFailed) as caught:
        run_tool(create_issue, {"title": "x"})
    assert caught.value.failure.kind is FailureKind.QUOTA_EXHAUSTED
