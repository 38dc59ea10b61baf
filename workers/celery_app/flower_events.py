"""Celery events that give every job a row in Flower's task list.

Flower turns an event of an unknown type `task-xyz` into a row of state `XYZ`. So these events describe a job as if it were
a Celery task. The uuid is the job's id, the name is `job:<agent>`, and the state follows the job. An event is sent only
when the state changes. A background thread sends it.
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
    # Celery's own type. Flower shows it as SUCCESS with a runtime, and a late event does not overwrite it.
    "complete": SUCCEEDED,
    # Not Celery's `failed`: Flower treats that as final, so a replay would not show.
    "dead_letter": "dead-lettered",
    "cancelled": "cancelled",
    "timed_out": "timed-out",
}
"""Outcome of a step -> new state of its job. The event's type is `task-` and this word; the row shows it in capitals."""

OVER = frozenset({SUCCEEDED, "cancelled", "timed-out"})

CAPACITY_EVENTS = 1_000
"""Most events that wait for a slow broker. Further events are dropped: a step must not wait for a row in Flower."""

BATCH_EVENTS = 50
"""Most events in one message. An event in a batch costs 24 us of CPU, an event alone costs 500 us (measured).

No event waits for a batch to fill. Several processes may change one job, so a delayed event would arrive after its successor.
"""

EXIT_FLUSH_S = 1.0
"""How long an ending process waits for its last events to be sent."""

REMEMBERED_JOBS = 10_000

PAUSE_S = 2.0
"""How long the sender pauses after the broker failed."""


class JobEvents:
    """Sends an event when a step changes its job's state. `observe` is called by `StepRunner`.

    There is one instance per process. It is thread-safe, and it neither raises nor blocks.
    """

    def __init__(self, app: Celery | None = None, *, node: str = "") -> None:
        """`node` is the name of the worker in Flower. By default it is that of this process."""
        self._app = app
        self._node = node
        self._sender: Sender | None = None
        self._lock = threading.Lock()
        self._not_running: dict[str, str] = {}
        """Job id -> state, for each job that this process last left in a state other than running."""

    def observe(self, claim: Claim, trace: TraceRecord, outcome: Outcome) -> None:
        """Send the job's new state if this step changed it. `trace.outcome` has endings that `outcome` lacks."""
        state = EVENTS.get(trace.outcome)
        if state is None or state == self._state_before(claim):
            return
        try:
            self._remember(claim.ref.job_id, state)
            self._send(state, make_event(claim, trace, outcome))
        except Exception:
            log.exception("events.broke", job_id=claim.ref.job_id)

    def flush(self, timeout_s: float) -> bool:
        """Wait until every event is sent or dropped. Returns False if the time runs out first."""
        return self._sender is None or self._sender.flush(timeout_s)

    @property
    def dropped(self) -> int:
        """How many events of this process were dropped."""
        return self._sender.dropped if self._sender else 0

    def _state_before(self, claim: Claim) -> str | None:
        """The job's state before this step, read from the claim. None if this is the job's first step.

        A deferral that did not count as an attempt is not visible in the claim. Then the process's memory decides.
        """
        waiting = claim.job.waiting
        if claim.decision or (waiting and waiting.step == claim.ref.step and waiting.until_ms is None):
            return "parked"
        if claim.attempt or (waiting and waiting.step == claim.ref.step):
            return "deferred"
        if claim.ref.step == "1":
            return None
        return self._not_running.get(claim.ref.job_id, RUNNING)

    def _remember(self, job_id: str, state: str) -> None:
        with self._lock:
            self._not_running.pop(job_id, None)
            if state != RUNNING and state not in OVER:
                self._not_running[job_id] = state
                if len(self._not_running) > REMEMBERED_JOBS:
                    del self._not_running[next(iter(self._not_running))]

    def _send(self, state: str, event: dict[str, Any]) -> None:
        sender = self._sender
        if sender is None or sender.pid != os.getpid():  # a forked child inherits neither thread nor connection
            with self._lock:
                if self._sender is None or self._sender.pid != os.getpid():
                    self._sender = Sender(self._celery(), self._node or node_name())
                sender = self._sender
        sender.put(f"task-{state}", event)

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
        threading.Thread(target=self._run, name="midwatch-events", daemon=True).start()
        atexit.register(self._flush_at_exit)
        # A pool child ends without running its atexit functions.
        signals.worker_process_shutdown.connect(self._flush_at_exit, weak=False)

    def put(self, kind: str, event: dict[str, Any]) -> None:
        """Queue an event. Drop it if the queue is full."""
        try:
            self._queue.put_nowait((kind, event))
        except queue.Full:
            self.dropped += 1

    def flush(self, timeout_s: float) -> bool:
        """See `JobEvents.flush`."""
        with self._queue.all_tasks_done:
            return self._queue.all_tasks_done.wait_for(lambda: not self._queue.unfinished_tasks, timeout_s)

    def _flush_at_exit(self, **_: object) -> None:
        if self.pid == os.getpid():
            self.flush(EXIT_FLUSH_S)

    def _run(self) -> None:
        dispatcher: Any = None
        while True:
            batch = self._take_batch()
            try:
                dispatcher = dispatcher or self._connect()
                for kind, event in batch:
                    dispatcher.send(kind, **event)
                dispatcher.flush(errors=False)
            except Exception as error:  # after any error the next batch opens a new connection
                self.dropped += len(batch)
                log.warning("events.dropped", events=len(batch), in_all=self.dropped, error=str(error)[:200])
                dispatcher = self._disconnect(dispatcher)
                time.sleep(PAUSE_S)
            finally:
                for _ in batch:
                    self._queue.task_done()

    def _take_batch(self) -> list[tuple[str, dict[str, Any]]]:
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


def make_event(claim: Claim, trace: TraceRecord, outcome: Outcome) -> dict[str, Any]:
    """Return the event of one row: ids, times and numbers, no content. Times are the server's, in seconds."""
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
    """Name of the Celery worker that runs this code. A job's row shows the worker that moved the job last."""
    task = _state.get_current_task()
    return (task.request.hostname if task is not None else None) or f"midwatch@{socket.gethostname()}"
