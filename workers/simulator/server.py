"""`ModelServer` runs the model server in a thread of this process. `server_process.serve` runs it as a process."""

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
from midwatch.workers.simulator.control_endpoints import Control
from midwatch.workers.simulator.faults.faults import Faults
from midwatch.workers.simulator.journal import Entry, Journal, Stats
from midwatch.workers.simulator.model_calls import ModelCalls
from midwatch.workers.simulator.vendor_formats import FORMATS_BY_PATH

LARGEST_BODY_BYTES = 64_000_000
"""Twice the limit of any vendor. The HTTP layer refuses a larger request."""
BACKLOG = 1_024
STOP_S = 10.0

log = logging.getLogger(__name__)


class ModelServer:
    """Answers model calls over HTTP on loopback. Use it as a context manager.

        with ModelServer(ScriptBrain(["Hello."])) as server:
            client = anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0)

    `brain` is a Brain or a rule set. Without one, each offered tool is called once. `latency_ms` is the time that an
    answer takes, or (lowest, highest). Port 0 picks a free port. A waiting answer needs no thread, so hundreds of
    requests can wait at the same time.
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
            raise ConfigError(f"latency_ms: expected a number of at least 0, or (lowest, highest), got {latency_ms!r}")
        self._journal = Journal(journal)
        self._calls = ModelCalls(_make_brain(brain), self._journal, faults or Faults(), (low, high))
        self._control = Control(self._calls, self._journal)
        self._host, self.port = host, port
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`, the value for `ANTHROPIC_BASE_URL`."""
        return f"http://{self._host}:{self.port}"

    @property
    def openai_url(self) -> str:
        """`url` with `/v1`, the value for `OPENAI_BASE_URL`."""
        return f"{self.url}/v1"

    def environment(self) -> dict[str, str]:
        """Return the environment variables that connect both SDKs to this server, here or in a child process."""
        return {
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": "simulated",
            "OPENAI_BASE_URL": self.openai_url,
            "OPENAI_API_KEY": "simulated",
        }

    def start(self) -> Self:
        """Start to listen and answer. Raises OSError if the port is taken."""
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
        """Stop listening, cancel waiting answers, and close the journal. A second call does nothing."""
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
        """Use these faults from the next request on. The attempts counted so far are kept."""
        self._calls.use(faults)

    def journal(self) -> list[Entry]:
        """Return the entries of the calls so far, in the order in which they ended."""
        return self._journal.entries()

    def stats(self) -> Stats:
        """Return the totals so far."""
        return self._journal.stats()

    def wait_until(self, reached: Callable[[Stats], bool], timeout_s: float = 10.0) -> Stats:
        """Block until the totals satisfy `reached`. After `timeout_s`, raise a TimeoutError that shows the totals."""
        return self._journal.wait_until(reached, timeout_s)

    def _accept(self, request: HTTPServerRequest) -> None:
        """Handle a complete request. A model call becomes a task, which is cancelled when the client leaves."""
        vendor_format = FORMATS_BY_PATH.get(request.path) if request.method == "POST" else None
        if vendor_format is None:
            self._control.answer(request)
            return
        task = asyncio.get_running_loop().create_task(self._calls.handle(request, vendor_format))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._finish(done, request))

        def client_left() -> None:
            task.cancel()

        cast(HTTP1Connection, request.connection).set_close_callback(client_left)

    def _finish(self, task: asyncio.Task[None], request: HTTPServerRequest) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("model server: a request failed", exc_info=task.exception())
            cast(HTTP1Connection, request.connection).close()


def _make_brain(given: Brain | Rules | None) -> Brain:
    """Make a brain. A callable without `answer` is a rule set."""
    if given is None or not hasattr(given, "answer"):
        return RuleBrain(given)
    return cast(Brain, given)
