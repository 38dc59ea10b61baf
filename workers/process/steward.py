"""The steward in every worker: publishes steps that are due, and owed steps that nobody has claimed in time."""

from __future__ import annotations

import random
import threading
from typing import Any

import structlog
from celery import bootsteps

from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.store.scripts import UNAVAILABLE
from midwatch.schemas.step import Priority
from midwatch.workers.celery_app.write_message import queue_key
from midwatch.workers.process.runtime import Runtime, runtime

log = structlog.get_logger("midwatch.steward")

PATIENCE_MS = 2_000
"""How long a published step may lie unclaimed while its queue is empty: then its message was lost with a worker."""
STALE_MS = 60_000
"""The same while its queue is not empty: then it most likely waits its turn, and a second message would only add to the queue."""

SETTLE_MS = 2_000
"""At least so long nothing is released after an outage: a commit that waits for the server asks once a second."""


class Steward:
    """One thread. Any number of stewards may run in a fleet: each entry is handed to one of them."""

    def __init__(self, current: Runtime, *, after_outage: bool = False) -> None:
        self._runtime = current
        self._after_outage = after_outage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="midwatch-steward", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the sweep under way."""
        self._stop.set()
        self._thread.join(timeout=2)

    def sweep(self) -> int:
        """Publish what is due, and what the coordinator lets go. Returns the ms until there is more, or -1."""
        client = self._runtime.client
        refs, soonest = client.operations.sweep(patience_ms=PATIENCE_MS, stale_ms=STALE_MS, idle=self._idle())
        admitted, more = client.gate.release(client.operations.wake)
        refs += admitted
        if refs:
            client.operations.publish(refs)
            log.info("steward.published", steps=len(refs))
        return min((ms for ms in (soonest, more) if ms >= 0), default=-1)

    def _idle(self) -> tuple[bool, bool]:
        """Are the model and tools queues empty? Always said to be not, where the broker can't be asked."""
        if not self._runtime.settings.one_server:
            return False, False
        pipe = self._runtime.client.store.client.pipeline(transaction=False)
        for name in ("model", "tools"):
            for priority in Priority:
                pipe.llen(queue_key(self._runtime.client.operations.keys.queue(name), priority))
        lengths = pipe.execute()
        half = len(lengths) // 2
        return not any(lengths[:half]), not any(lengths[half:])

    def _work(self) -> None:
        while not self._stop.is_set():
            wait_ms = self._runtime.settings.sweep_ms
            try:
                wait_ms = self._turn()
            except (StoreUnavailable, *UNAVAILABLE) as error:
                if not self._after_outage:
                    log.warning("steward.store_unavailable", error=str(error)[:200])
                self._after_outage = True
            except Exception:
                log.exception("steward.broke")
            # Jitter keeps the stewards of a fleet from asking in one breath.
            self._stop.wait(wait_ms * random.uniform(0.9, 1.1) / 1000)

    def _turn(self) -> int:
        """Sweep. Returns the ms until the next turn."""
        settings = self._runtime.settings
        if self._after_outage:
            # Leases ran out because they could not be renewed. Who has finished work in hand comes first, or it is done twice.
            self._runtime.client.operations.sweep(patience_ms=0, stale_ms=0, idle=(False, False), limit=0)
            self._after_outage = False
            return max(settings.lease_ms, SETTLE_MS)
        soonest = self.sweep()
        return max(20, soonest) if 0 <= soonest < settings.sweep_ms else settings.sweep_ms


class StewardStep(bootsteps.StartStopStep):
    """Starts and stops the steward with the worker. A thread, not a timer: a solo pool blocks the worker's loop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self.steward: Steward | None = None
        self._started = False

    def start(self, consumer: Any) -> None:
        """With the consumer."""
        self.steward = Steward(runtime(), after_outage=self._started)
        self._started = True
        self.steward.start()

    def stop(self, consumer: Any) -> None:
        """With the consumer: on shutdown, and before a reconnection."""
        if self.steward:
            self.steward.stop()
            self.steward = None
