"""Wake the consumer when a thread of the pool becomes free.

The consumer takes a message only when a slot is free, and it checks this when its event loop turns. The result of a prefork
child turns the loop. The result of a thread does not. So after a full pool became free, the consumer slept until the next
timer: up to five seconds a step (measured).
"""

from __future__ import annotations

import os
from contextlib import suppress
from threading import Lock
from typing import Any

from celery import bootsteps


class WakeupPipe:
    """A pipe whose read end an event loop watches. Any thread may write to it.

    A task may outlive its consumer. When the broker is lost, the pipe is closed, and the system soon gives its file
    descriptor to another connection. A write to the bare descriptor would then reach a vendor or Redis in front of a
    request. This happened, and was seen as `xxxxPOST`. So only this class writes to the descriptor, and never after
    `close`.
    """

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        os.set_blocking(self._write_end, False)
        self._lock = Lock()
        self._open = True

    def wake(self, *_: object) -> None:
        """Wake the event loop."""
        with self._lock, suppress(BlockingIOError):  # a full pipe has woken the loop already
            if self._open:
                os.write(self._write_end, b"x")

    def drain(self, *_: object) -> None:
        """Empty the pipe."""
        with self._lock, suppress(BlockingIOError):
            if self._open:
                os.read(self.read_end, 4096)

    def close(self) -> None:
        """Close both ends. Later calls of any method do nothing."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self.read_end)
                os.close(self._write_end)


class WakeupStep(bootsteps.StartStopStep):
    """Adds a pipe to the event loop. Every finished task of a threads pool writes to it."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._undo: list[Any] = []

    def start(self, consumer: Any) -> None:
        """Add the pipe when the consumer starts."""
        pool = consumer.pool
        if consumer.hub is None or not hasattr(pool, "executor"):
            return
        pipe = WakeupPipe()
        submit = pool.on_apply

        def on_apply(*args: Any, **kwargs: Any) -> Any:
            result = submit(*args, **kwargs)
            result.f.add_done_callback(pipe.wake)
            return result

        pool.on_apply = on_apply
        consumer.hub.add_reader(pipe.read_end, pipe.drain, pipe.read_end)
        self._undo = [lambda: consumer.hub.remove_reader(pipe.read_end), lambda: setattr(pool, "on_apply", submit)]
        self._undo.append(pipe.close)

    def stop(self, consumer: Any) -> None:
        """Remove the pipe when the consumer stops: on shutdown, and before a reconnection."""
        while self._undo:
            with suppress(OSError, KeyError, ValueError):
                self._undo.pop(0)()
