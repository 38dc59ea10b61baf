"""The processes of the whole system on this machine: an embedded server, the model server, workers, Flower."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.errors import MidwatchError
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Death, Fleet, wait_ready, worker_argv
from midwatch.workers.local.process import Member
from midwatch.workers.settings import Settings

NO_KEY = "none-needed-here"
"""Used in place of a vendor's key when the local model server replaces the vendor."""

SIMULATED = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", ""),
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL", "/v1"),
    "gemini": ("GEMINI_API_KEY", "GEMINI_BASE_URL", "/v1"),
    "openai-compatible": ("OPENAI_API_KEY", "OPENAI_BASE_URL", "/v1"),
}
"""Provider -> the variables of its key and its URL, and the path on the model server that speaks its format."""

READY_S = 300.0
"""How long a worker may take to be ready. It takes 2 s, but minutes on a machine loaded tenfold (measured)."""


class Stage:
    """The processes of `midwatch demo` and `midwatch dev`. A context manager that stops them all at the end.

    Args:
        folder: folder for the server's data and all logs.
        env: more variables for the workers: the agents and their settings.
        model_server: arguments of `midwatch simulate`. None: the vendors are called.
        providers: the providers that the model server replaces.
        redis_port: a fixed port of the embedded server, or 0 for a free one.
    """

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str],
        model_server: list[str] | None,
        *,
        providers: Sequence[str] = ("anthropic", "openai"),
        redis_port: int = 0,
    ) -> None:
        self.folder = folder
        self._providers = providers
        self.server = EmbeddedServer(folder / "server", port=redis_port, append_only="everysec")
        self.deaths: list[Death] = []
        self.env = {
            "PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH")))),
            "MIDWATCH_REDIS_URL": self.server.url,
            "MIDWATCH_LOG_FORMAT": "console",
            **env,
        }
        self.fleet = Fleet(self.env, folder / "logs", on_death=self.deaths.append)
        if model_server is not None:
            self._start_model_server(model_server)
        self.workers: list[Member] = []
        self.flower_url = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.stop()
        self.server.stop()

    def _start_model_server(self, arguments: list[str]) -> None:
        member = self.fleet.start("model-server", [sys.executable, "-m", "midwatch.workers.simulator", *arguments])
        wait_ready(member, '"url"')
        lines = (self.folder / "logs" / "model-server.log").read_text().splitlines()
        url = json.loads(next(line for line in lines if '"url"' in line))["url"]
        for provider in self._providers:
            key, base_url, path = SIMULATED[provider]
            self.env |= {key: NO_KEY, base_url: f"{url}{path}"}

    def start_worker(self, name: str, queues: str, pool: str, concurrency: int) -> Member:
        """Start one worker process. It may not be ready when this returns."""
        member = self.fleet.start(name, worker_argv(queues, pool, concurrency, name), self.env)
        self.workers.append(member)
        return member

    def start_flower(self, port: int) -> None:
        """Start Flower on loopback. Its URL is in `flower_url`."""
        argv = [sys.executable, "-m", "midwatch.workers.cli", "flower", "--port", str(port)]
        self.fleet.start("flower", argv, self.env)
        self.flower_url = f"http://127.0.0.1:{port}"

    def await_workers(self, timeout_s: float = READY_S) -> None:
        """Wait until every worker is ready.

        Raises:
            MidwatchError: a worker ended or needs longer; the message holds the end of its log.
        """
        for worker in self.workers:
            wait_ready(worker, "ready", timeout_s)

    def client(self) -> Client:
        """Return a client of this fleet."""
        if not self.server.alive:
            raise MidwatchError(f"the embedded server has ended; its log is {self.server.log_path}")
        return make_client(Settings(redis_url=self.server.url))
