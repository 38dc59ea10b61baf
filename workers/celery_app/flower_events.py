"""A row for every job in Flower's task list, by Celery events of our own.

Flower turns an event of unknown type `task-xyz` into a row of state `XYZ`. So a job is a task that never was: its uuid
is the job's id, its name `job:<agent>`, its state follows the job. Only a change of state sends an event, in a thread.
"""

from __future__ import annotations

import atexit
import os
import queue
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import structlog
from celery import _state, signals

from midwatch.orchestration.protocol.claims import Claim
from midwatch.schemas.step import Complete, Defer, Outcome
from midwatch.schemas.trace import TraceRecord

if TYPE_CHECKING:
    from celery import Celery

log = structlog.get_logger("midwatch.events")

RUNNING, SUCCEEDED = "running", "succeeded"

EVENTS = {
    "continue": RUNNING,
    "defer": "deferred",
    "park": "parked",
    # Celery's own: Flower knows it as SUCCESS, shows a runtime, and lets nothing that arrives late overwrite it.
    "complete": SUCCEEDED,
    # Not Celery's `failed`: that is final for Flower, and a replay would never show.
    "dead_letter": "dead-lettered",
    "cancelled": "cancelled",
    "timed_out": "timed-out",
}
"""What a step's outcome makes of its job: the event's type after `task-`, and in capitals the row's state."""

OVER = frozenset({SUCCEEDED, "cancelled", "timed-out"})

CAPACITY_EVENTS = 1_000
"""Events that may wait for a slow broker. More are dropped: a row in Flower is not worth a step's time."""

BATCH_EVENTS = 50
"""Events that go in one message when several wait: 24 us of CPU each, where one alone costs 500 (measured). None waits
for others: with several processes moving one job, an event that lingers arrives after the one that followed it.
"""

PARTING_S = 1.0
"""How long a process that ends waits for its last events to be sent."""

REMEMBERED_JOBS = 10_000

PAUSE_S = 2.0
"""How long nothing is sent after the broker failed."""


class JobEvents:
    """Its `observe` is a `StepRunner.observe`. One per process; thread-safe; never raises, never waits."""

    def __init__(self, app: Celery | None = None) -> None:
        self._app = app
        self._sender: Sender | None = None
        self._lock = threading.Lock()
        self._not_running: dict[str, str] = {}
        """Jobs that this process left in another state than running."""

    def observe(self, claim: Claim, trace: TraceRecord, outcome: Outcome) -> None:
        """Send the job's new state, if this step changed it. `trace.outcome` tells endings that `outcome` does not."""
        now = EVENTS.get(trace.outcome)
        if now is None or now == self._before(claim):
            return
        try:
            self._remember(claim.ref.job_id, now)
            self._send(now, fields(claim, trace, outcome))
        except Exception:
            log.exception("events.broke", job_id=claim.ref.job_id)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is sent or dropped. False: it was not, in time."""
        return self._sender is None or self._sender.flush(timeout_s)

    @property
    def dropped(self) -> int:
        """Events of this process that were never sent."""
        return self._sender.dropped if self._sender else 0

    def _before(self, claim: Claim) -> str | None:
        """The job's state before this step, as the claim shows it; None for a job whose first step this is.

        A deferral that counted as no attempt leaves no mark in the claim: then what this process remembers decides.
        """
        waiting = claim.job.waiting
        if claim.verdict or (waiting and waiting.step == claim.ref.step and waiting.until_ms is None):
            return "parked"
        if claim.attempt or (waiting and waiting.step == claim.ref.step):
            return "deferred"
        if claim.ref.step == "1":
            return None
        return self._not_running.get(claim.ref.job_id, RUNNING)

    def _remember(self, job_id: str, now: str) -> None:
        with self._lock:
            self._not_running.pop(job_id, None)
            if now != RUNNING and now not in OVER:
                self._not_running[job_id] = now
                if len(self._not_running) > REMEMBERED_JOBS:
                    del self._not_running[next(iter(self._not_running))]

    def _send(self, now: str, event: dict[str, Any]) -> None:
        sender = self._sender
        if sender is None or sender.pid != os.getpid():  # a forked child inherits neither thread nor connection
            with self._lock:
                if self._sender is None or self._sender.pid != os.getpid():
                    self._sender = Sender(self._celery(), node_name())
                sender = self._sender
        sender.put(f"task-{now}", event)

    def _celery(self) -> Celery:
        if self._app is None:
            from midwatch.workers.celery_app.app import app

            self._app = app
        return self._app


class Sender:
    """One thread with one connection: Celery's event dispatcher behind a bounded queue."""

    def __init__(self, app: Celery, hostname: str) -> None:
        self.pid = os.getpid()
        self.dropped = 0
        self._app = app
        self._hostname = hostname
        self._queue: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue(CAPACITY_EVENTS)
        threading.Thread(target=self._work, name="midwatch-events", daemon=True).start()
        atexit.register(self._part)
        signals.worker_process_shutdown.connect(self._part, weak=False)  # a pool child leaves without its atexit

    def put(self, kind: str, event: dict[str, Any]) -> None:
        """Hand an event over, or drop it."""
        try:
            self._queue.put_nowait((kind, event))
        except queue.Full:
            self.dropped += 1

    def flush(self, timeout_s: float) -> bool:
        """See `JobEvents.flush`."""
        with self._queue.all_tasks_done:
            return self._queue.all_tasks_done.wait_for(lambda: not self._queue.unfinished_tasks, timeout_s)

    def _part(self, **_: object) -> None:
        if self.pid == os.getpid():
            self.flush(PARTING_S)

    def _work(self) -> None:
        dispatcher: Any = None
        while True:
            batch = self._batch()
            try:
                dispatcher = dispatcher or self._connect()
                for kind, event in batch:
                    dispatcher.send(kind, **event)
                dispatcher.flush(errors=False)
            except Exception as error:  # whatever it is, the next batch begins with a new connection
                self.dropped += len(batch)
                log.warning("events.dropped", events=len(batch), in_all=self.dropped, error=str(error)[:200])
                dispatcher = self._disconnect(dispatcher)
                time.sleep(PAUSE_S)
            finally:
                for _ in batch:
                    self._queue.task_done()

    def _batch(self) -> list[tuple[str, dict[str, Any]]]:
        batch = [self._queue.get()]
        while len(batch) < BATCH_EVENTS:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return batch

    def _connect(self) -> Any:
        connection = self._app.connection_for_write()
        connection.ensure_connection(max_retries=1, timeout=5)
        return self._app.events.Dispatcher(
            connection,
            hostname=self._hostname,
            buffer_while_offline=False,
            buffer_group=frozenset({"task"}),
            buffer_limit=BATCH_EVENTS + 1,
        )

    @staticmethod
    def _disconnect(dispatcher: Any) -> None:
        if dispatcher is not None:
            dispatcher.close()
            dispatcher.connection.collect(socket_timeout=0.1)


def fields(claim: Claim, trace: TraceRecord, outcome: Outcome) -> dict[str, Any]:
    """What a row shows: ids, times and numbers; nothing that anybody said. Times are the server's, in seconds."""
    job = claim.job
    began_ms = job.started_ms or job.created_ms
    event: dict[str, Any] = {
        "uuid": job.job_id,
        "name": f"job:{job.agent}",
        "args": "()",
        "kwargs": repr({"job_id": job.job_id, "session_id": job.session_id, "step": trace.step}),
        "retries": job.retries + int(isinstance(outcome, Defer) and outcome.counts_as_attempt),
        "received": job.created_ms / 1000,
        "started": began_ms / 1000,
        "timestamp": trace.ended_ms / 1000,
        "root_id": job.root_id,
        "parent_id": job.parent.job_id if job.parent else None,
    }
    if isinstance(outcome, Complete):
        event["runtime"] = max(0, trace.ended_ms - began_ms) / 1000
    elif trace.failure:
        event["exception"] = trace.failure.kind.value
    return event


def node_name() -> str:
    """The Celery worker that this runs in, so that a job's row names the worker that moved it last."""
    task = _state.get_current_task()
    return (task.request.hostname if task is not None else None) or f"midwatch@{socket.gethostname()}"
