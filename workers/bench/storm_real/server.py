"""The downstream of `bench storm`: a real HTTP server that fails on purpose, and records every request with its time.

It accepts plain calls (`POST /call`) and Anthropic's Messages API, with one limit for both. It runs in a thread.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import responses
from typing import Self, cast

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.netutil import bind_sockets

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop, Usage
from midwatch.workers.bench.storm_real.call import calls_below
from midwatch.workers.bench.storm_real.course import Answer, Course
from midwatch.workers.simulator.brains.brain import Conversation, SimulatedCall
from midwatch.workers.simulator.vendor_formats import FORMATS_BY_PATH
from midwatch.workers.simulator.vendor_formats.request_parsing import parse_request
from midwatch.workers.simulator.vendor_formats.vendor_format import Refusal, RefusalKind, Reply

HOST = "127.0.0.1"
BACKLOG = 2_048
MESSAGES = "/v1/messages"
REFUSALS = {429: RefusalKind.RATE_LIMITED, 529: RefusalKind.OVERLOADED}


@dataclass(slots=True)
class Arrival:
    """One request that reached the downstream."""

    at_s: float
    """When the whole request had arrived, in seconds since the beginning."""
    call: str
    """Name of the call. All tries at one call have the same name."""
    status: int = 0
    """Status of the answer. 0: not answered yet."""


class Downstream:
    """The server, as a context manager. It answers inside the block. Its time starts with `begin()`."""

    def __init__(self, course: Course, *, latency_s: float = 0.1) -> None:
        self.course = course
        self.arrivals: list[Arrival] = []
        self._latency_s = latency_s
        self._last_s = 0.0
        self._began_s = time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="storm-downstream", daemon=True)
        self._listening = threading.Event()

    def __enter__(self) -> Self:
        self._sockets = bind_sockets(0, HOST, backlog=BACKLOG)
        self.url = f"http://{HOST}:{self._sockets[0].getsockname()[1]}"
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def begin(self) -> None:
        """Start the time of the downstream's behaviour."""
        self._began_s = time.monotonic()

    def now_s(self) -> float:
        """Seconds since `begin()`."""
        return time.monotonic() - self._began_s

    def answered(self) -> set[str]:
        """Return the calls that were answered with 200."""
        return {arrival.call for arrival in list(self.arrivals) if arrival.status == 200}

    def quiet_s(self) -> float:
        """Return the time since the last answer, or 0 while a request is being answered."""
        is_answering = any(arrival.status == 0 for arrival in list(self.arrivals))
        return 0.0 if is_answering else self.now_s() - self._last_s

    def _serve(self) -> None:
        loop, running = self._loop, set[asyncio.Task[None]]()
        asyncio.set_event_loop(loop)

        def accept(request: HTTPServerRequest) -> None:
            task = loop.create_task(self._handle(request))
            running.add(task)
            task.add_done_callback(running.discard)

        async def listen() -> HTTPServer:
            server = HTTPServer(accept)
            server.add_sockets(self._sockets)
            return server

        async def close() -> None:
            server.stop()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await server.close_all_connections()

        server = loop.run_until_complete(listen())
        self._listening.set()
        loop.run_forever()
        loop.run_until_complete(close())
        loop.close()

    async def _handle(self, request: HTTPServerRequest) -> None:
        call, make_reply = _read_request(request)
        arrival = Arrival(self.now_s(), call)
        self.arrivals.append(arrival)
        answer = await self.course.answer(arrival.at_s, call)
        if answer.status == 200:
            await asyncio.sleep(self._latency_s)
        status, headers, body = make_reply(answer, len(self.arrivals))
        if answer.retry_after_s is not None:
            headers["Retry-After"] = str(answer.retry_after_s)
        arrival.status, self._last_s = status, self.now_s()
        connection = cast(HTTP1Connection, request.connection)
        if connection.stream.closed():
            return
        payload = json.dumps(body).encode()
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(payload))}
        start = ResponseStartLine("HTTP/1.1", status, responses.get(status, "Overloaded"))
        connection.write_headers(start, HTTPHeaders(headers), payload)
        connection.finish()


MakeReply = Callable[[Answer, int], tuple[int, dict[str, str], JsonObject]]
"""(answer, number of the request) -> status, headers, body."""


def _read_request(request: HTTPServerRequest) -> tuple[str, MakeReply]:
    """Return the name of the call, and a function that makes the reply."""
    if request.path == MESSAGES:
        conversation = parse_request(FORMATS_BY_PATH[MESSAGES], request.body).conversation
        name = f"{conversation.first_user}#{conversation.turn}"
        return name, lambda answer, n: _message(conversation, name, answer, n)
    name = str(json.loads(request.body)["call"])
    return name, lambda answer, _: (answer.status, {}, {"call": name, "status": answer.status})


def _message(conversation: Conversation, name: str, answer: Answer, n: int) -> tuple[int, dict[str, str], JsonObject]:
    """Return the reply in Anthropic's format, with rate-limit headers. A first turn calls all children at once."""
    vendor_format, request_id = FORMATS_BY_PATH[MESSAGES], f"req_{n:08d}"
    headers = vendor_format.write_headers(request_id, answer.rate, datetime.now(UTC))
    if answer.status != 200:
        refusal = Refusal(
            REFUSALS[answer.status], model=conversation.model, limit=answer.rate.limit if answer.rate else 0
        )
        status, body = vendor_format.write_refusal(refusal, request_id)
        return status, headers, body
    children = calls_below(conversation.first_user) if conversation.turn == 1 else ()
    calls = tuple(
        SimulatedCall(f"{vendor_format.call_prefix}{n}_{i}", conversation.tools[0].name, json.dumps({"input": child}))
        for i, child in enumerate(children)
    )
    usage = Usage(input_tokens=100 + 20 * len(conversation.turns), output_tokens=20 + 20 * len(calls))
    text, stop = ("", Stop.TOOLS) if calls else ("Done.", Stop.END)
    return (
        200,
        headers,
        vendor_format.write_reply(Reply(name, conversation.model, text, calls, stop, usage), int(time.time())),
    )
