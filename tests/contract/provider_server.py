"""A fake vendor on loopback that sends exactly the bytes that a test wants: any status, slow bodies, or nothing.

It uses plain sockets, because an HTTP server library would not send invalid responses.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.patience import PATIENCE_S

MAX_PIECES = 10_000


@dataclass(frozen=True)
class ReceivedRequest:
    """One request that the server received."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed as JSON."""
        return json.loads(self.body)


class ClientConnection:
    """The connection that a reply is written to. It also knows when the server stops."""

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._connection = connection
        self._stopping = stopping

    def send(self, data: bytes) -> bool:
        """Send bytes. Return False if the client has closed the connection."""
        try:
            self._connection.sendall(data)
        except OSError:
            return False
        return True

    def pause(self, seconds: float) -> bool:
        """Wait. Return False if the server stops or the client closes the connection meanwhile."""
        if self._stopping.wait(seconds):
            return False
        if isinstance(self._connection, ssl.SSLSocket):
            return True  # TLS does not allow to peek; the next send fails if the client is gone
        self._connection.setblocking(False)
        try:
            return self._connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self._connection.setblocking(True)


Reply = Callable[[ClientConnection], bool]
"""Answers one request. Returns True to keep the connection open for the next one."""


def reply(status: int = 200, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
    """Reply with a complete response. `body` is sent as JSON, unless it is bytes or a string."""
    content = _content(body)
    all_headers = {"content-type": "application/json", **(headers or {}), "content-length": str(len(content))}
    return lambda client: client.send(head(status, all_headers) + content)


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return the bytes of a status line and headers."""
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def raw(data: bytes) -> Reply:
    """Reply with exactly these bytes, then close the connection."""

    def act(client: ClientConnection) -> bool:
        client.send(data)
        return False

    return act


def drip(data: bytes, piece_bytes: int = 1, every_s: float = 0.05) -> Reply:
    """Reply with these bytes in small pieces, then send nothing until the client gives up."""

    def act(client: ClientConnection) -> bool:
        for start in range(0, min(len(data), MAX_PIECES), piece_bytes):
            if not client.send(data[start : start + piece_bytes]) or not client.pause(every_s):
                return False
        return silent(client)

    return act


def silent(client: ClientConnection) -> bool:
    """Send nothing until the client gives up."""
    for _ in range(MAX_PIECES):
        if not client.pause(0.05):
            break
    return False


def _content(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


@dataclass
class ProviderServer:
    """The server. Each reply is used once, in order. A request without a reply gets a 500 that says so."""

    tls: ssl.SSLContext | None = None
    requests: list[ReceivedRequest] = field(default_factory=list)
    connections: int = 0
    _replies: deque[Reply] = field(default_factory=deque)
    _default_reply: Reply | None = None
    _open: set[socket.socket] = field(default_factory=set)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._acceptor = threading.Thread(target=self._accept, name="provider server", daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(PATIENCE_S)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)

    @property
    def url(self) -> str:
        """The base URL of the server, without a trailing slash."""
        host, port = self._listener.getsockname()
        return f"{'http' if self.tls is None else 'https'}://{host}:{port}"

    def answer_next(self, *replies: Reply) -> None:
        """Answer each of the next requests with one of these replies, in order."""
        self._replies.extend(replies)

    def answer_all(self, answer: Reply) -> None:
        """Answer every request from now on with this reply."""
        self._default_reply = answer

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self.connections += 1
                self._open.add(connection)
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with (
            connection,
            contextlib.suppress(OSError),
        ):  # the client closed the connection, or does not trust the certificate
            if self.tls is None:
                self._answer_requests(connection)
            else:
                with self.tls.wrap_socket(connection, server_side=True) as tls_connection:
                    self._answer_requests(tls_connection)
        with self._lock:
            self._open.discard(connection)

    def _answer_requests(self, connection: socket.socket) -> None:
        client = ClientConnection(connection, self._stopping)
        with connection.makefile("rb") as incoming:
            while (request := _read(incoming)) is not None:
                with self._lock:
                    self.requests.append(request)
                    answer = self._default_reply or (self._replies.popleft() if self._replies else _UNEXPECTED)
                if not answer(client):
                    break


_UNEXPECTED = reply(500, {"error": {"message": "the test has no reply for this request"}})


def _read(incoming: Any) -> ReceivedRequest | None:
    start = incoming.readline()
    if not start:
        return None
    headers: dict[str, str] = {}
    while (line := incoming.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    body = incoming.read(int(headers.get("content-length", 0)))
    return ReceivedRequest(start.decode("latin-1").split(" ")[1], headers, body)
