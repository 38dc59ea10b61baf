"""The HTTP client under an SDK: kept connections for 200 threads, the call's deadline on each, no redirects.

Redirects are refused because a client that follows one takes the API key along to wherever it points.
"""

from __future__ import annotations

import functools
import socket
import ssl
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import httpcore2
import httpx2

from midwatch.workers.providers.http.deadline import DeadlineBackend

MAX_CONNECTIONS = 256
"""Calls that may be under way at once in one process, for one provider."""

KEEPALIVE_S = 60.0
"""How long an idle connection is kept: steps of a job are seconds apart, and a TLS handshake costs two round trips.
Vendors' front ends keep theirs for minutes."""

CONNECT_TIMEOUT_S = 5.0
"""For one address. The next one is tried after it, as long as the call's deadline allows."""

_KEEP_ALIVE_PROBES: list[httpcore2.SOCKET_OPTION] = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]

_CORE_ERRORS = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
)


@functools.cache
def _tls() -> ssl.SSLContext:
    """Trusted certificates, loaded once: that takes 20 ms of CPU."""
    return httpx2.create_ssl_context()


def timeouts(timeout_s: float) -> httpx2.Timeout:
    """The client's own timeouts. The deadline bounds the call; these keep one dead address from eating all of it."""
    return httpx2.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))


def http_client(base_url: str) -> httpx2.Client:
    """A client for one provider's base URL, through the proxy that the environment names for it."""
    return httpx2.Client(transport=DeadlineTransport(proxy_for(base_url)), follow_redirects=False, trust_env=False)


def proxy_for(base_url: str) -> str | None:
    """The proxy that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` set for this URL."""
    parts = urllib.parse.urlsplit(base_url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    proxies = urllib.request.getproxies()
    url = proxies.get(parts.scheme) or proxies.get("all")
    return url if url is None or "://" in url else f"http://{url}"


class DeadlineTransport(httpx2.BaseTransport):
    """Hands requests to a pool of deadline-bound connections and reads each reply to its end before returning it."""

    def __init__(self, proxy_url: str | None = None) -> None:
        self._pool = httpcore2.ConnectionPool(
            ssl_context=_tls(),
            proxy=None if proxy_url is None else _proxy(proxy_url),
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=DeadlineBackend(),
            socket_options=_KEEP_ALIVE_PROBES,
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request and read the whole reply."""
        url = request.url
        core_request = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_httpx_errors():
            core_response = self._pool.handle_request(core_request)
            try:
                content = core_response.read()
            finally:
                core_response.close()
        return httpx2.Response(core_response.status, headers=core_response.headers, content=content, request=request)

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


def _proxy(url: str) -> httpcore2.Proxy:
    """A proxy whose user and password, when the URL names them, are sent as its own authentication."""
    proxy = httpx2.Proxy(url)
    raw = proxy.url
    core_url = httpcore2.URL(scheme=raw.raw_scheme, host=raw.raw_host, port=raw.port, target=raw.raw_path)
    return httpcore2.Proxy(core_url, auth=proxy.raw_auth, headers=proxy.headers.raw)


@contextmanager
def _as_httpx_errors() -> Iterator[None]:
    """The SDKs know httpx2's exceptions; httpcore2 has its own, of the same names."""
    try:
        yield
    except _CORE_ERRORS as error:
        mapped: type[httpx2.TransportError] = getattr(httpx2, type(error).__name__, httpx2.TransportError)
        raise mapped(str(error)) from None
