"""`ModelServer`: the model server as a thread of this process, or, through `serve`, as a process of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self, cast

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.simulator.brains.brain import Brain
from midwatch.workers.simulator.brains.rules import RuleBrain, Rules
from midwatch.workers.simulator.control import Control
from midwatch.workers.simulator.faults import Faults
from midwatch.workers.simulator.journal import Entry, Journal, Stats
from midwatch.workers.simulator.modelcall import ModelCalls
from midwatch.workers.simulator.vendor_formats import ANSWERS

LARGEST_BODY_BYTES = 64_000_000
"""Twice what any vendor accepts; a larger request is cut off by the HTTP layer."""
BACKLOG = 1_024
STOP_S = 10.0

log = logging.getLogger(__name__)


class ModelServer:
    """Answers model calls over HTTP on loopback; use as a context manager.

        with ModelServer(ScriptBrain(["Hello."])) as server:
            client = anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0)

    `brain` is a Brain or a rule set; without one, each offered tool is called once. `latency_ms` is how long an answer
    takes, or (lowest, highest). A port of 0 is a free one. Waiting answers hold no thread: hundreds may be under way.
    """

    def __init__(
        self,
        brain: Brain | Rules | None = None,
        *,
        faults: Faults | None = None,
        latency_ms: int | tuple[int, int] = 0,
        journal: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        low, high = (latency_ms, latency_ms) if isinstance(latency_ms, int) else latency_ms
        if not 0 <= low <= high:
            raise ConfigError(f"latency_ms: expected a number from 0 on, or (lowest, highest), got {latency_ms!r}")
        self._journal = Journal(journal)
        self._calls = ModelCalls(_brain(brain), self._journal, faults or Faults(), (low, high))
        self._control = Control(self._calls, self._journal)
        self._host, self.port = host, port
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`: what `ANTHROPIC_BASE_URL` wants."""
        return f"http://{self._host}:{self.port}"

    @property
    def openai_url(self) -> str:
        """The same with `/v1`: what `OPENAI_BASE_URL` wants."""
        return f"{self.url}/v1"

    def environment(self) -> dict[str, str]:
        """Environment variables that send both SDKs to this server, here or in a child process."""
        return {
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": "simulated",
            "OPENAI_BASE_URL": self.openai_url,
            "OPENAI_API_KEY": "simulated",
        }

    def start(self) -> Self:
        """Listen, and answer from now on; raises OSError when the port is taken."""
        if self._running is not None:
            return self
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.create_server((self._host, self.port), family=family, backlog=BACKLOG)
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        ready = threading.Event()

        async def run() -> None:
            stopping = asyncio.Event()
            http = HTTPServer(self._accept, max_body_size=LARGEST_BODY_BYTES, max_buffer_size=2 * LARGEST_BODY_BYTES)
            http.add_sockets([listening])
            self._running = asyncio.get_running_loop(), stopping
            ready.set()
            await stopping.wait()
            http.stop()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await http.close_all_connections()

        self._thread = threading.Thread(target=lambda: asyncio.run(run()), name="model-server", daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def stop(self) -> None:
        """Stop listening, break off answers under way, close the journal. Stopping twice is stopping once."""
        if self._running is None or self._thread is None:
            return
        loop, stopping = self._running
        loop.call_soon_threadsafe(stopping.set)
        self._thread.join(STOP_S)
        self._running = None
        self._journal.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def use(self, faults: Faults) -> None:
        """From the next request on, these faults. Attempts counted so far stay counted."""
        self._calls.use(faults)

    def journal(self) -> list[Entry]:
        """What was answered so far, in the order in which it ended."""
        return self._journal.entries()

    def stats(self) -> Stats:
        """Totals so far."""
        return self._journal.stats()

    def wait_until(self, reached: Callable[[Stats], bool], timeout_s: float = 10.0) -> Stats:
        """Block until the totals satisfy `reached`; raises TimeoutError that shows them when they don't in time."""
        return self._journal.wait_until(reached, timeout_s)

    def _accept(self, request: HTTPServerRequest) -> None:
        """One request is here in full. Model calls become tasks, which end when the client leaves."""
        wire = ANSWERS.get(request.path) if request.method == "POST" else None
        if wire is None:
            self._control.answer(request)
            return
        task = asyncio.get_running_loop().create_task(self._calls.handle(request, wire))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._over(done, request))

        def client_left() -> None:
            task.cancel()

        cast(HTTP1Connection, request.connection).set_close_callback(client_left)

    def _over(self, task: asyncio.Task[None], request: HTTPServerRequest) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("model server: a request failed", exc_info=task.exception())
            cast(HTTP1Connection, request.connection).close()


def _brain(given: Brain | Rules | None) -> Brain:
    """A bare callable is a rule set."""
    if given is None or not hasattr(given, "answer"):
        return RuleBrain(given)
    return cast(Brain, given)
