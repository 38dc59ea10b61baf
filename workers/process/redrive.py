"""The thread of a worker that replays dead letters without a human. In a fleet, one such thread works at a time."""

from __future__ import annotations

import random
import threading
from typing import Any

import structlog
from celery import bootsteps

from midwatch.orchestration.client.letters.redriver import Redriver
from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.store.scripts import UNAVAILABLE
from midwatch.workers.process.runtime import Runtime, runtime

log = structlog.get_logger("midwatch.redrive")

LOOK_MS = {"busy": 1_000, "idle": 5_000, "not_mine": 5_000}
"""The time until the next look. A worker that does not redrive asks for the lease as often."""


class RedriveThread:
    """Looks at the letters from time to time."""

    def __init__(self, current: Runtime) -> None:
        self._redriver = Redriver(
            current.client.operations, current.client.gate, current.agents, current.worker,
            first_wait_ms=current.settings.redrive_ms,
        )  # fmt: skip
        self._first_wait_ms = current.settings.redrive_ms
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="midwatch-redrive", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after its current look."""
        self._stop.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        wait_ms = float(min(LOOK_MS["idle"], self._first_wait_ms))
        while not self._stop.wait(wait_ms * random.uniform(0.5, 1.0) / 1000):
            wait_ms = LOOK_MS["idle"]
            try:
                wait_ms = min(LOOK_MS[self._redriver.look()], self._first_wait_ms)
            except (StoreUnavailable, *UNAVAILABLE) as error:
                log.info("redrive.store_unavailable", error=str(error)[:200])
            except Exception:
                log.exception("redrive.broke")


class RedriveStep(bootsteps.StartStopStep):
    """Starts and stops the thread with the worker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self.thread: RedriveThread | None = None

    def start(self, consumer: Any) -> None:
        """Start the thread with the consumer."""
        self.thread = RedriveThread(runtime())
        self.thread.start()

    def stop(self, consumer: Any) -> None:
        """Stop the thread with the consumer: on shutdown, and before a reconnection."""
        if self.thread:
            self.thread.stop()
            self.thread = None
