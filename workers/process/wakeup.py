"""Wake the consumer when a thread of the pool is free again.

The consumer takes a message only when a slot is free, and looks when its event loop turns. A prefork child's result turns the
loop; a thread's does not, so a full pool that became free slept until the next timer: up to five seconds a step (measured).
"""

from __future__ import annotations

import os
from contextlib import suppress
from threading import Lock
from typing import Any

from celery import bootsteps


class Bell:
    """A pipe that an event loop listens to, and any thread may ring.

    A task may outlive the consumer it was taken by: when the broker is lost, the pipe is closed and its number is soon that
    of another connection. What is written to the bare number then goes to a vendor or to Redis, in front of a request: seen
    as `xxxxPOST`. So nobody else has the numbers, and a bell that is closed is silent.
    """

    def __init__(self) -> None:
        self.listening, self._ringing = os.pipe()
        os.set_blocking(self.listening, False)
        os.set_blocking(self._ringing, False)
        self._lock = Lock()
        self._open = True

    def ring(self, *_: object) -> None:
        """Wake who listens."""
        with self._lock, suppress(BlockingIOError):  # full: it is awake already
            if self._open:
                os.write(self._ringing, b"x")

    def heard(self, *_: object) -> None:
        """Empty the pipe."""
        with self._lock, suppress(BlockingIOError):
            if self._open:
                os.read(self.listening, 4096)

    def close(self) -> None:
        """Silent from now on. Closing twice is closing once."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self.listening)
                os.close(self._ringing)


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
        bell = Bell()
        submit = pool.on_apply

        def on_apply(*args: Any, **kwargs: Any) -> Any:
            result = submit(*args, **kwargs)
            result.f.add_done_callback(bell.ring)
            return result

        pool.on_apply = on_apply
        consumer.hub.add_reader(bell.listening, bell.heard, bell.listening)
        self._undo = [lambda: consumer.hub.remove_reader(bell.listening), lambda: setattr(pool, "on_apply", submit)]
        self._undo.append(bell.close)

    def stop(self, consumer: Any) -> None:
        """With the consumer: on shutdown, and before a reconnection."""
        while self._undo:
            with suppress(OSError, KeyError, ValueError):
                self._undo.pop(0)()
