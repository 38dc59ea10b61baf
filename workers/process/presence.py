"""A worker reports itself to the fleet every few seconds. `midwatch workers` lists the reports."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

import structlog
from celery import bootsteps
from celery.worker import state

from midwatch.orchestration.client.presence import REPORT_S, Presence, WorkerReport
from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.store.scripts import UNAVAILABLE
from midwatch.workers.process.runtime import Runtime, runtime

log = structlog.get_logger("midwatch.worker")


class PresenceThread:
    """Reports until it is stopped, then removes the report."""

    def __init__(self, current: Runtime, *, pool: str, slots: int, queues: tuple[str, ...]) -> None:
        self._presence = Presence(current.client.store.client, current.client.operations.keys)
        self._report = WorkerReport(
            name=current.worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            pool=pool,
            queues=queues,
            slots=slots,
            busy=0,
            agents={agent.name: agent.version for agent in current.agents},
            version=_find_version(),
            started_ms=0,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="midwatch-presence", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and remove the report."""
        self._stop.set()
        self._thread.join(timeout=2)
        try:
            self._presence.leave(self._report.name)
        except (StoreUnavailable, *UNAVAILABLE):
            log.debug("presence.not_removed")  # it is not listed any more after 20 s

    def report(self) -> None:
        """Report once."""
        started_ms = self._report.started_ms or self._presence.now_ms()
        self._report = self._report.model_copy(update={"busy": len(state.active_requests), "started_ms": started_ms})
        self._presence.report(self._report)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stop.wait(wait_s):
            wait_s = REPORT_S
            try:
                self.report()
            except (StoreUnavailable, *UNAVAILABLE) as error:
                log.debug("presence.store_unavailable", error=str(error)[:200])
            except Exception:
                log.exception("presence.broke")


def _find_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("midwatch")
    except PackageNotFoundError:
        return "unknown"


class PresenceStep(bootsteps.StartStopStep):
    """Starts and stops the reports with the worker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self.thread: PresenceThread | None = None

    def start(self, consumer: Any) -> None:
        """Start the reports with the consumer."""
        self.thread = PresenceThread(
            runtime(),
            pool=type(consumer.pool).__module__.rpartition(".")[2],
            slots=consumer.controller.concurrency,
            queues=tuple(name.rpartition(".")[2] for name in consumer.app.amqp.queues.consume_from),
        )
        self.thread.start()

    def stop(self, consumer: Any) -> None:
        """Stop the reports with the consumer: on shutdown, and before a reconnection."""
        if self.thread:
            self.thread.stop()
            self.thread = None
