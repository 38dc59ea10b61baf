"""The HTTP client that an SDK uses. It keeps connections for 200 threads and ends each call at its deadline.

It follows no redirects, because it would send the API key to the host that a redirect names.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - socket imports it at the first name lookup, inside the first call
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
"""Most simultaneous calls to one provider in one process."""

KEEPALIVE_S = 60.0
"""How long an idle connection is kept. Steps of a job are seconds apart, and a TLS handshake costs two round trips.
The vendors' servers keep idle connections for minutes."""

CONNECT_TIMEOUT_S = 5.0
"""Timeout for one address. Then the next address is tried, if the call's deadline has not passed."""

_KEEP_ALIVE_PROBES: list[httpcore2.SOCKET_OPTION] = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]

_CORE_ERRORS = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
)


@functools.cache
def _load_certificates() -> ssl.SSLContext:
    """Load the trusted certificates, once per process because it takes 20 ms of CPU."""
    return httpx2.create_ssl_context()


def make_timeouts(timeout_s: float) -> httpx2.Timeout:
    """Make the client's timeouts. The deadline bounds the whole call; these keep one dead address from using it up."""
    return httpx2.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))


def make_http_client(base_url: str) -> httpx2.Client:
    """Make a client for a provider's base URL. It uses the proxy that the environment names for that URL."""
    return httpx2.Client(transport=DeadlineTransport(find_proxy(base_url)), follow_redirects=False, trust_env=False)


def find_proxy(base_url: str) -> str | None:
    """Find the proxy for this URL in `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`."""
    parts = urllib.parse.urlsplit(base_url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    proxies = urllib.request.getproxies()
    url = proxies.get(parts.scheme) or proxies.get("all")
    return url if url is None or "://" in url else f"http://{url}"


class DeadlineTransport(httpx2.BaseTransport):
    """Sends requests over a pool of connections with a deadline. Reads each reply completely before returning it."""

    def __init__(self, proxy_url: str | None = None) -> None:
        self._pool = httpcore2.ConnectionPool(
            ssl_context=_load_certificates(),
            proxy=None if proxy_url is None else _make_proxy(proxy_url),
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


def _make_proxy(url: str) -> httpcore2.Proxy:
    """Make a proxy from its URL. A user and password in the URL are sent to the proxy only."""
    proxy = httpx2.Proxy(url)
    raw = proxy.url
    core_url = httpcore2.URL(scheme=raw.raw_scheme, host=raw.raw_host, port=raw.port, target=raw.raw_path)
    return httpcore2.Proxy(core_url, auth=proxy.raw_auth, headers=proxy.headers.raw)


@contextmanager
def _as_httpx_errors() -> Iterator[None]:
    """Turn httpcore2's exceptions into httpx2's exceptions of the same names, which the SDKs handle."""
    try:
        yield
    except _CORE_ERRORS as error:
        mapped: type[httpx2.TransportError] = getattr(httpx2, type(error).__name__, httpx2.TransportError)
        raise mapped(str(error)) from None
