"""One deadline for a whole provider call: connecting, sending, and reading every byte of the reply.

The timeout of an HTTP client limits one read, not the call. A server that sent single bytes, each just before the read
timed out, stretched a 2 s timeout to 32 s (measured). So this module wraps the socket. Each operation may use only
the time left until the deadline of the calling thread, and no operation starts after the deadline. No watchdog thread
is needed.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ssl import SSLContext
from typing import Any

import httpcore2

from midwatch.workers.providers.http.name_lookup import NameLookup

MAX_REPLY_BYTES = 32 * 1024 * 1024
"""Most bytes read for one call. Real replies are under 1 MB; a broken server could otherwise fill the memory."""

MAX_CALL_S = 86_400.0
"""Longest deadline of a call, because a socket does not accept an infinite timeout."""


class _Call(threading.local):
    """Deadline and bytes received of the current thread's call."""

    ends_at: float | None = None
    received_bytes: int = 0


_call = _Call()


@contextmanager
def limit_call(timeout_s: float) -> Iterator[None]:
    """Limit the time of everything this thread sends and receives in the block. A nested limit can only shorten it."""
    outer_ends_at, outer_received = _call.ends_at, _call.received_bytes
    ends_at = time.monotonic() + min(timeout_s, MAX_CALL_S)
    _call.ends_at = ends_at if outer_ends_at is None else min(ends_at, outer_ends_at)
    _call.received_bytes = 0
    try:
        yield
    finally:
        _call.ends_at, _call.received_bytes = outer_ends_at, outer_received


def remaining_s(timeout_s: float | None, out_of_time: type[httpcore2.TimeoutException]) -> float | None:
    """Return how long one operation may take: its own timeout or the time until the deadline, whichever is less.

    Raises:
        out_of_time: the deadline has passed.

    """
    if _call.ends_at is None:
        return timeout_s
    left = _call.ends_at - time.monotonic()
    if left <= 0:
        raise out_of_time("the deadline of the call has passed")
    return left if timeout_s is None else min(timeout_s, left)


class DeadlineStream(httpcore2.NetworkStream):
    """A connection whose operations end at the deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, *, nested_tls: bool = False) -> None:
        self._stream = stream
        # TLS inside TLS (through an https proxy) has no socket that can be written to directly.
        self._socket: socket.socket | None = None if nested_tls else stream.get_extra_info("socket")

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read the bytes that are available, `max_bytes` at most."""
        data = self._stream.read(max_bytes, remaining_s(timeout, httpcore2.ReadTimeout))
        _call.received_bytes += len(data)
        if _call.received_bytes > MAX_REPLY_BYTES:
            raise httpcore2.ReadError(f"the reply exceeds {MAX_REPLY_BYTES:,} bytes")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all bytes. The deadline covers all of them together, so a slow server gets no extra time."""
        if self._socket is None:
            self._stream.write(buffer, remaining_s(timeout, httpcore2.WriteTimeout))
            return
        view = memoryview(buffer)
        while view:
            try:
                self._socket.settimeout(remaining_s(timeout, httpcore2.WriteTimeout))
                view = view[self._socket.send(view) :]
            except TimeoutError:
                raise httpcore2.WriteTimeout("the server does not read the request") from None
            except OSError as error:
                raise httpcore2.WriteError(str(error)) from None

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Start TLS. The standard library applies the timeout to the whole handshake."""
        nested = self._stream.get_extra_info("ssl_object") is not None
        left = remaining_s(timeout, httpcore2.ConnectTimeout)
        return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left), nested_tls=nested)

    def get_extra_info(self, info: str) -> Any:
        """Return the information about the connection that the pool needs."""
        return self._stream.get_extra_info(info)


class DeadlineBackend(httpcore2.NetworkBackend):
    """Opens connections. The deadline also limits the name lookup and the attempt at each address."""

    def __init__(self, lookup: NameLookup | None = None) -> None:
        self._sockets = httpcore2.SyncBackend()
        self._lookup = lookup or NameLookup()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address of the host that accepts the connection."""
        failed: Exception = httpcore2.ConnectError(f"{host} has no address")
        options = tuple(socket_options or ())
        for address in self._lookup.addresses(host, port, remaining_s(timeout, httpcore2.ConnectTimeout)):
            left = remaining_s(timeout, httpcore2.ConnectTimeout)
            try:
                return DeadlineStream(self._sockets.connect_tcp(address, port, left, local_address, options))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed
