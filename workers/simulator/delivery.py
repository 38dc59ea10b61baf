"""How an answer travels: whole, byte by byte, in part, or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from http.client import responses
from typing import cast

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine

from midwatch.workers.simulator.faults import Fault, Faults


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes
    content_type: str = "application/json"


WEB_PAGE = HttpAnswer(
    200,
    {},
    b"<!doctype html><html><head><title>Just a moment...</title></head><body>Checking your connection.</body></html>",
    "text/html; charset=utf-8",
)
"""What a proxy or a captive portal puts in the place of an answer."""


Note = Callable[[int], None]
"""Told the status (0: none) just before the client can know it: whoever has an answer finds it in the journal."""


async def deliver(
    request: HTTPServerRequest, answer: HttpAnswer, fault: Fault | None, faults: Faults, note: Note
) -> None:
    """Send the answer in the manner of the fault."""
    connection = cast(HTTP1Connection, request.connection)
    if fault is Fault.HANG:
        await asyncio.sleep(faults.hang_s)
        note(0)
        connection.close()
    elif fault is Fault.RESET:
        note(0)
        _reset(connection)
    elif fault is Fault.DRIP:
        await _begin(connection, answer, b"")
        for byte in answer.body[:-1]:
            await connection.write(bytes((byte,)))
            await asyncio.sleep(faults.drip_ms / 1000)
        note(answer.status)
        await connection.write(answer.body[-1:])
        connection.finish()
    elif fault is Fault.TRUNCATED:
        note(answer.status)
        await _begin(connection, answer, answer.body[: len(answer.body) // 2])
        connection.close()
    else:
        note(answer.status)
        # Not awaited: the kernel takes an answer at once, and a client that is gone is noticed by the close callback.
        _begin(connection, answer, answer.body)
        connection.finish()


def _begin(connection: HTTP1Connection, answer: HttpAnswer, chunk: bytes) -> asyncio.Future[None]:
    """Send status, headers and the first bytes of the body."""
    headers = HTTPHeaders(answer.headers)
    headers["Content-Type"] = answer.content_type
    headers["Content-Length"] = str(len(answer.body))
    reason = responses.get(answer.status, "Overloaded")
    return connection.write_headers(ResponseStartLine("HTTP/1.1", answer.status, reason), headers, chunk)


def _reset(connection: HTTP1Connection) -> None:
    """Close so that the client's kernel reports a reset: linger for no time at all."""
    connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
