"""A model server on loopback that does what a test tells it, byte by byte: any status, any body, drips, silence.

Written on bare sockets, because an HTTP library on the server's side would refuse to misbehave.
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

MAX_PIECES = 10_000


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Line:
    """What a reply writes to: one connection, and the news that the server is stopping."""

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._connection = connection
        self._stopping = stopping

    def send(self, data: bytes) -> bool:
        """Send bytes; False when the client has gone."""
        try:
            self._connection.sendall(data)
        except OSError:
            return False
        return True

    def pause(self, seconds: float) -> bool:
        """Wait; False when the server stops or the client hangs up meanwhile."""
        if self._stopping.wait(seconds):
            return False
        if isinstance(self._connection, ssl.SSLSocket):
            return True  # nothing can be peeked at inside TLS; the next send will tell
        self._connection.setblocking(False)
        try:
            return self._connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self._connection.setblocking(True)


Reply = Callable[[Line], bool]
"""Answers one request; True keeps the connection for the next one."""


def reply(status: int = 200, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
    """A whole response. `body` is sent as it is when it is bytes or a string, else as JSON."""
    content = _content(body)
    all_headers = {"content-type": "application/json", **(headers or {}), "content-length": str(len(content))}
    return lambda line: line.send(head(status, all_headers) + content)


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """A status line and headers."""
    lines = [f"HTTP/1.1 {status} Said So", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def raw(data: bytes) -> Reply:
    """Exactly these bytes, then the connection is closed."""

    def act(line: Line) -> bool:
        line.send(data)
        return False

    return act


def drip(data: bytes, piece_bytes: int = 1, every_s: float = 0.05) -> Reply:
    """These bytes a piece at a time, then silence, until the client gives up."""

    def act(line: Line) -> bool:
        for start in range(0, min(len(data), MAX_PIECES), piece_bytes):
            if not line.send(data[start : start + piece_bytes]) or not line.pause(every_s):
                return False
        return silent(line)

    return act


def silent(line: Line) -> bool:
    """No byte, until the client gives up."""
    for _ in range(MAX_PIECES):
        if not line.pause(0.05):
            break
    return False


def _content(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


@dataclass
class ProviderServer:
    """The server. Replies are used up in order; a request for which there is none gets a 500 that says so."""

    tls: ssl.SSLContext | None = None
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    _replies: deque[Reply] = field(default_factory=deque)
    _always: Reply | None = None
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
        self._acceptor.join(5)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        host, port = self._listener.getsockname()
        return f"{'http' if self.tls is None else 'https'}://{host}:{port}"

    def will(self, *replies: Reply) -> None:
        """Answer the next requests with these, one each."""
        self._replies.extend(replies)

    def always(self, answer: Reply) -> None:
        """Answer every request with this from now on."""
        self._always = answer

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
        with connection, contextlib.suppress(OSError):  # the client hung up, or does not trust us
            if self.tls is None:
                self._converse(connection)
            else:
                with self.tls.wrap_socket(connection, server_side=True) as sealed:
                    self._converse(sealed)
        with self._lock:
            self._open.discard(connection)

    def _converse(self, connection: socket.socket) -> None:
        line = Line(connection, self._stopping)
        with connection.makefile("rb") as incoming:
            while (request := _read(incoming)) is not None:
                with self._lock:
                    self.seen.append(request)
                    answer = self._always or (self._replies.popleft() if self._replies else _UNEXPECTED)
                if not answer(line):
                    break


_UNEXPECTED = reply(500, {"error": {"message": "the test told the server of no reply to this request"}})


def _read(incoming: Any) -> Seen | None:
    start = incoming.readline()
    if not start:
        return None
    headers: dict[str, str] = {}
    while (line := incoming.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    body = incoming.read(int(headers.get("content-length", 0)))
    return Seen(start.decode("latin-1").split(" ")[1], headers, body)
