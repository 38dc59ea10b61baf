"""What a worker does before it reports ready: prepare its own process, or wait until the children of its pool are prepared."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from datetime import date
from typing import Any

import structlog
from celery import bootsteps
from celery.signals import worker_init, worker_process_init

from midwatch.orchestration.errors import StoreUnavailable
from midwatch.workers import telemetry
from midwatch.workers.celery_app.app import app
from midwatch.workers.process import prepare
from midwatch.workers.process.boot_check import check_store
from midwatch.workers.process.runtime import import_agents, runtime
from midwatch.workers.settings import settings

CHILDREN_S = 60.0
"""How long the worker waits for its children. One takes 0.1 s, but seconds on a loaded machine."""

log = structlog.get_logger("midwatch.worker")


class ChildReports:
    """A pipe by which the children of a prefork pool report that they are prepared: one byte each."""

    def __init__(self) -> None:
        self.main_pid = os.getpid()
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)  # after the boot, nobody reads the reports of replaced children

    def report(self) -> None:
        """Report that this child is prepared."""
        with suppress(OSError):
            os.write(self._write_end, b"x")

    def await_children(self, count: int, timeout_s: float) -> int:
        """Wait until so many children have reported. Returns how many have."""
        reported, until_s = 0, time.monotonic() + timeout_s
        while reported < count:
            readable, _, _ = select.select([self._read_end], [], [], max(0.0, until_s - time.monotonic()))
            if not readable:
                break
            reported += len(os.read(self._read_end, count - reported))
        return reported


_reports: list[ChildReports] = []
"""The pipe of this worker. It is made before the pool, so that children inherit it."""


def _queues() -> list[str]:
    return list(app.amqp.queues.consume_from)


@worker_init.connect
def _import_before_the_fork(**_: object) -> None:
    """Import in the main process what all children need."""
    _reports[:] = [ChildReports()]
    agents = import_agents(settings().agents)
    prepare.import_sdks(prepare.find_providers(agents, _queues()))
    prepare.warn_of_model_ends(agents, date.today())


@worker_process_init.connect
def _prepare_child(**_: object) -> None:
    """Prepare a child of a prefork pool. A solo pool sends this signal in the main process, which `PrepareStep` prepares."""
    if not _reports or _reports[0].main_pid == os.getpid():
        return
    telemetry.configure(settings())
    try:
        prepare.prepare(runtime(), _queues())
    finally:
        _reports[0].report()


def _refuse_an_unusable_store() -> None:
    """End the start if the server refuses this worker. `midwatch worker` has checked it, but `celery worker` has not."""
    try:
        check_store(settings())
    except StoreUnavailable as error:
        log.error("worker.store_not_ready", error=str(error)[:300])


class PrepareStep(bootsteps.StartStopStep):
    """Prepares this process before the worker reports ready and takes its first message."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._done = False

    def start(self, consumer: Any) -> None:
        """Prepare once. A consumer that reconnects starts its steps again."""
        if self._done:
            return
        self._done = True
        _refuse_an_unusable_store()
        pool = consumer.pool
        if type(pool).__module__ == "celery.concurrency.prefork":
            self._await_children(pool.num_processes)
        else:
            prepare.prepare(runtime(), _queues())

    def _await_children(self, count: int) -> None:
        reported = _reports[0].await_children(count, CHILDREN_S) if _reports else 0
        if reported < count:
            log.warning("worker.children_not_ready", ready=reported, children=count)
