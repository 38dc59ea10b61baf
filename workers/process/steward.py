"""The steward, a thread in every worker. It publishes due steps, and owed steps that no worker has claimed in time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection
from typing import Any

import structlog
from celery import bootsteps

from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.store.scripts import UNAVAILABLE
from midwatch.schemas.step import Priority, StepKind
from midwatch.workers.celery_app.first_steps import ALIVE_S, FIRST_STEPS
from midwatch.workers.celery_app.later import LaterMessages
from midwatch.workers.celery_app.write_message import QUEUES, queue_keys
from midwatch.workers.process.runtime import Runtime, runtime
from midwatch.workers.redis_connection import connect_redis
from midwatch.workers.server_address import is_redis

log = structlog.get_logger("midwatch.steward")

PATIENCE_MS = 2_000
"""How long a published step may be unclaimed while its queue is empty. After that its message was lost with a worker."""
STALE_MS = 60_000
"""How long a published step may be unclaimed while its queue is not empty. Until then the step most likely waits its turn,
and a second message would only lengthen the queue."""

LOOK_MS = 5_000
"""How often the fleet looks for jobs that no message will reach. One look costs the server about 3 ms."""

SETTLE_MS = 2_000
"""Shortest time without a release after an outage. A commit that waits for the server tries once a second."""


def make_later(current: Runtime) -> LaterMessages | None:
    """Make the list of messages with an eta. None: the broker is not a Redis, and keeps them itself."""
    broker = current.settings.broker
    if not is_redis(broker):
        return None
    client = current.client.store.client if current.settings.one_server else connect_redis(broker, max_connections=2)
    return LaterMessages(client, current.client.operations.keys.later())


class Steward:
    """One thread. A fleet may run any number of stewards: each due step is given to only one of them."""

    def __init__(
        self, current: Runtime, *, slots: int = 1, queues: Collection[str] = (), after_outage: bool = False
    ) -> None:
        self._runtime = current
        self._slots = slots
        self._queues = queues
        self._after_outage = after_outage
        self._later = make_later(current)
        self._look_at_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="midwatch-steward", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after its current sweep."""
        self._stop.set()
        FIRST_STEPS.taken.set()  # so that the thread waits no longer
        self._thread.join(timeout=2)

    def sweep(self) -> int:
        """Publish due steps and steps that the coordinator admits. Returns the ms until the next one is due, or -1."""
        client = self._runtime.client
        due, owed, soonest = client.operations.find_due_and_owed(
            patience_ms=PATIENCE_MS, stale_ms=STALE_MS, idle=self._look_at_queues()
        )
        admitted, more = client.gate.release(client.operations.wake)
        # A first step that was claimed before goes with the steps of running jobs. The coordinator has kept tokens for a
        # woken one, and they are free again if it has to wait in the queue.
        for refs, begun in ((due + admitted, True), (owed, False)):
            if refs:
                client.operations.publish(refs, begun=begun)
        if self._later is not None:
            self._later.deliver_due()
        if FIRST_STEPS.others_wait:
            client.operations.backlog.fill_queues()
        self._look_over_records()
        if published := len(due) + len(owed) + len(admitted):
            log.info("steward.published", steps=published)
        return min((ms for ms in (soonest, more) if ms >= 0), default=-1)

    def _look_over_records(self) -> None:
        """Look for jobs that no message will reach. One steward of the fleet does it, every few seconds."""
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_MS / 1_000
        self._runtime.data_watch.look()
        operations = self._runtime.client.operations
        if operations.client.set(operations.keys.looked_over(), self._runtime.worker, nx=True, px=LOOK_MS):
            operations.records.look()

    def _look_at_queues(self) -> tuple[bool, bool]:
        """Are the model and tools queues empty? Always False if the broker is not this Redis.

        If many tool steps wait, this worker takes no first steps until the next look.
        """
        if not self._runtime.settings.one_server:
            return False, False
        pipe = self._runtime.client.store.client.pipeline(transaction=False)
        prefix = self._runtime.settings.prefix
        model, tools = queue_keys(prefix, StepKind.MODEL), queue_keys(prefix, StepKind.TOOL)
        operations = self._runtime.client.operations
        served = operations.keys.tools_served()
        if f"{prefix}.{QUEUES[StepKind.TOOL]}" in self._queues:
            pipe.set(served, "", ex=ALIVE_S)
        else:
            pipe.get(served)
        pipe.exists(*(operations.keys.backlog(priority) for priority in Priority))
        for key in (*model, *tools):
            pipe.llen(key)
        is_served, backlogs, *lengths = pipe.execute()
        FIRST_STEPS.others_wait = backlogs > 0
        waiting_models, waiting_tools = lengths[: len(model)], lengths[len(model) :]
        FIRST_STEPS.hold(waiting_tools, slots=self._slots, tools_are_served=is_served is not None)
        return not any(waiting_models), not any(waiting_tools)

    def _run(self) -> None:
        while not self._stop.is_set():
            wait_ms = self._runtime.settings.sweep_ms
            try:
                wait_ms = self._sweep_and_wait_ms()
            except (StoreUnavailable, *UNAVAILABLE) as error:
                if not self._after_outage:
                    log.warning("steward.store_unavailable", error=str(error)[:200])
                self._after_outage = True
            except Exception:
                log.exception("steward.broke")
            # Jitter keeps the stewards of a fleet from sweeping at the same moment.
            self._wait(wait_ms * random.uniform(0.9, 1.1) / 1000)

    def _wait(self, wait_s: float) -> None:
        """Wait. Meanwhile refill the queues of first steps each time that this worker has taken one."""
        end_s = time.monotonic() + wait_s
        while not self._stop.is_set() and FIRST_STEPS.taken.wait(max(0.0, end_s - time.monotonic())):
            FIRST_STEPS.taken.clear()
            if self._stop.is_set():
                return
            try:
                self._runtime.client.operations.backlog.fill_queues()
            except (StoreUnavailable, *UNAVAILABLE):
                return  # the next sweep logs it

    def _sweep_and_wait_ms(self) -> int:
        """Sweep once. Returns the ms until the next sweep."""
        settings = self._runtime.settings
        if self._after_outage:
            # Leases expired because they could not be renewed. Workers with finished steps must commit before other
            # workers claim these steps, or the work is done twice.
            self._runtime.client.operations.sweep(patience_ms=0, stale_ms=0, idle=(False, False), limit=0)
            self._after_outage = False
            return max(settings.lease_ms, SETTLE_MS)
        soonest = self.sweep()
        return max(20, soonest) if 0 <= soonest < settings.sweep_ms else settings.sweep_ms


class StewardStep(bootsteps.StartStopStep):
    """Starts and stops the steward with the worker.

    The steward is a thread and not a timer, because a solo pool blocks the worker's event loop.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self.steward: Steward | None = None
        self._started = False

    def start(self, consumer: Any) -> None:
        """Start the steward with the consumer."""
        self.steward = Steward(
            runtime(),
            slots=consumer.controller.concurrency,
            queues=frozenset(consumer.app.amqp.queues.consume_from),
            after_outage=self._started,
        )
        self._started = True
        self.steward.start()

    def stop(self, consumer: Any) -> None:
        """Stop the steward with the consumer: on shutdown, and before a reconnection."""
        if self.steward:
            self.steward.stop()
            self.steward = None
