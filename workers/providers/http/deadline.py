"""One wall-clock deadline for a whole provider call: connect, send, every byte of the answer.

An HTTP client's timeout bounds one read, not a call: a server that drips a byte before each read times out held a
2 s timeout open for 32 s (measured). So the socket itself is wrapped: each operation gets what is left of the
deadline of the calling thread, and none starts after it. Nothing has to be interrupted: there is no watchdog thread.
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
"""Most that is read for one call. The largest real reply is under 1 MB; more is a broken server filling our memory."""

MAX_CALL_S = 86_400.0
"""Ceiling on a call's deadline: a socket refuses an infinite timeout."""


class _Call(threading.local):
    """The call that the current thread is making."""

    ends_at: float | None = None
    received_bytes: int = 0


_call = _Call()


@contextmanager
def within(timeout_s: float) -> Iterator[None]:
    """Bound everything this thread sends and receives in the block. An inner deadline can only shorten an outer one."""
    outer_ends_at, outer_received = _call.ends_at, _call.received_bytes
    ends_at = time.monotonic() + min(timeout_s, MAX_CALL_S)
    _call.ends_at = ends_at if outer_ends_at is None else min(ends_at, outer_ends_at)
    _call.received_bytes = 0
    try:
        yield
    finally:
        _call.ends_at, _call.received_bytes = outer_ends_at, outer_received


def left_s(timeout_s: float | None, out_of_time: type[httpcore2.TimeoutException]) -> float | None:
    """What one operation may take: its own timeout, or what is left of the deadline if that is less.

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
    """A connection whose every operation is cut to the time left."""

    def __init__(self, stream: httpcore2.NetworkStream, *, nested_tls: bool = False) -> None:
        self._stream = stream
        # TLS inside TLS (an https proxy) has no socket of its own to write to.
        self._socket: socket.socket | None = None if nested_tls else stream.get_extra_info("socket")

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what there is."""
        data = self._stream.read(max_bytes, left_s(timeout, httpcore2.ReadTimeout))
        _call.received_bytes += len(data)
        if _call.received_bytes > MAX_REPLY_BYTES:
            raise httpcore2.ReadError(f"the reply exceeds {MAX_REPLY_BYTES:,} bytes")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it; a server that takes it in sips gets no more time than any other."""
        if self._socket is None:
            self._stream.write(buffer, left_s(timeout, httpcore2.WriteTimeout))
            return
        view = memoryview(buffer)
        while view:
            try:
                self._socket.settimeout(left_s(timeout, httpcore2.WriteTimeout))
                view = view[self._socket.send(view) :]
            except TimeoutError:
                raise httpcore2.WriteTimeout("the server does not take the request") from None
            except OSError as error:
                raise httpcore2.WriteError(str(error)) from None

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Shake hands; the standard library bounds the handshake as a whole."""
        nested = self._stream.get_extra_info("ssl_object") is not None
        left = left_s(timeout, httpcore2.ConnectTimeout)
        return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left), nested_tls=nested)

    def get_extra_info(self, info: str) -> Any:
        """What the pool asks of a connection."""
        return self._stream.get_extra_info(info)


class DeadlineBackend(httpcore2.NetworkBackend):
    """Opens connections: the name lookup and each address are cut to the time left, too."""

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
        """Connect to the first address of the host that answers."""
        failed: Exception = httpcore2.ConnectError(f"{host} has no address")
        options = tuple(socket_options or ())
        for address in self._lookup.addresses(host, port, left_s(timeout, httpcore2.ConnectTimeout)):
            left = left_s(timeout, httpcore2.ConnectTimeout)
            try:
                return DeadlineStream(self._sockets.connect_tcp(address, port, left, local_address, options))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed
