"""Sends an answer: completely, byte by byte, in part, or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import responses
from typing import cast

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine

from midwatch.workers.simulator.faults.faults import Fault, Faults


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The status, headers and body of an HTTP response."""

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
"""A web page, as a proxy or a captive portal sends instead of the answer."""

PAGES = {
    Fault.HTML: WEB_PAGE,
    Fault.BLOCKED_PAGE: replace(
        WEB_PAGE,
        status=403,
        headers={"server": "cloudflare", "cf-ray": "8f00000000000001-SIM", "cf-mitigated": "challenge"},
    ),
}
"""The faults that send a page."""

RecordStatus = Callable[[int], None]
"""Records the status (0: nothing was sent) before the client receives the answer. So a client that has its answer also
finds it in the journal."""


async def deliver(
    request: HTTPServerRequest, answer: HttpAnswer, fault: Fault | None, faults: Faults, record_status: RecordStatus
) -> None:
    """Send the answer in the way that the fault demands."""
    connection = cast(HTTP1Connection, request.connection)
    if fault is Fault.HANG:
        await asyncio.sleep(faults.hang_s)
        record_status(0)
        connection.close()
    elif fault is Fault.RESET:
        record_status(0)
        _reset(connection)
    elif fault is Fault.DRIP:
        await _send_start(connection, answer, b"")
        for byte in answer.body[:-1]:
            await connection.write(bytes((byte,)))
            await asyncio.sleep(faults.drip_ms / 1000)
        record_status(answer.status)
        await connection.write(answer.body[-1:])
        connection.finish()
    elif fault is Fault.TRUNCATED:
        record_status(answer.status)
        await _send_start(connection, answer, answer.body[: len(answer.body) // 2])
        connection.close()
    else:
        record_status(answer.status)
        # Not awaited: the kernel buffers the answer, and the close callback handles a client that is gone.
        _send_start(connection, answer, answer.body)
        connection.finish()


def _send_start(connection: HTTP1Connection, answer: HttpAnswer, chunk: bytes) -> asyncio.Future[None]:
    """Send status, headers and the first bytes of the body."""
    headers = HTTPHeaders(answer.headers)
    headers["Content-Type"] = answer.content_type
    headers["Content-Length"] = str(len(answer.body))
    reason = responses.get(answer.status, "Overloaded")
    return connection.write_headers(ResponseStartLine("HTTP/1.1", answer.status, reason), headers, chunk)


def _reset(connection: HTTP1Connection) -> None:
    """Close the connection so that the client gets a reset: SO_LINGER with a time of zero does that."""
    connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
