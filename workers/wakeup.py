"""Wake the consumer when a thread of the pool is free again.

The consumer takes a message only when a slot is free, and looks when its event loop turns. A prefork child's result turns the
loop; a thread's does not, so a full pool that became free slept until the next timer: up to five seconds a step (measured).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from celery import bootsteps


class WakeupStep(bootsteps.StartStopStep):
    """A pipe in the event loop, written to at the end of every task of a threads pool."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._undo: list[Any] = []

    def start(self, consumer: Any) -> None:
        """With the consumer."""
        pool = consumer.pool
        if consumer.hub is None or not hasattr(pool, "executor"):
            return
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        submit = pool.on_apply

        def wake(_: object) -> None:
            with suppress(OSError):  # full: it is awake already; closed: it is ending
                os.write(write_end, b"x")

        def on_apply(*args: Any, **kwargs: Any) -> Any:
            result = submit(*args, **kwargs)
            result.f.add_done_callback(wake)
            return result

        def drain(_: int = 0) -> None:
            with suppress(BlockingIOError):
                os.read(read_end, 4096)

        pool.on_apply = on_apply
        consumer.hub.add_reader(read_end, drain, read_end)
        self._undo = [lambda: consumer.hub.remove_reader(read_end), lambda: setattr(pool, "on_apply", submit)]
        self._undo += [lambda: os.close(read_end), lambda: os.close(write_end)]

    def stop(self, consumer: Any) -> None:
        """With the consumer: on shutdown, and before a reconnection."""
        while self._undo:
            with suppress(OSError, KeyError, ValueError):
                self._undo.pop(0)()
