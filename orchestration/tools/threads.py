"""A pool of threads that run tools' functions under a time limit.

A thread can't be stopped from outside. One that overruns is abandoned: it runs until its function returns, the result is
dropped, and the thread ends. The next call gets a new thread. If a function never returns, the hard time limit of the tools
queue kills its worker process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from typing import Generic, TypeVar

R = TypeVar("R")

MAX_IDLE = 64
"""Most idle threads in the pool. More calls start more threads, which end with their call."""


class Overrun(Exception):
    """Raised when a call does not end in time. The message says what happens to the call."""


class RunningCall(Generic[R]):
    """A function to run in another thread, and its result or error."""

    __slots__ = ("_done", "context", "error", "function", "value")

    def __init__(self, function: Callable[[], R], context: Context) -> None:
        self.function = function
        self.context = context
        self.value: R | None = None
        self.error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        """Run the function, in the pool's thread. Any exception is stored in the call, even SystemExit: the thread goes on."""
        try:
            self.value = self.context.run(self.function)
        except BaseException as error:
            self.error = error
        self.finish()

    def finish(self) -> None:
        """Wake the waiting thread."""
        self._done.release()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end, in the caller's thread. Returns True if the call has ended."""
        return self._done.acquire(timeout=max(0.0, timeout_s))


class _Runner:
    """A thread, and the queue from which it takes calls (implemented in C, without a Python lock)."""

    __slots__ = ("inbox",)

    def __init__(self) -> None:
        self.inbox: SimpleQueue[RunningCall[object] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="midwatch-tool", daemon=True).start()

    def _serve(self) -> None:
        while (call := self.inbox.get()) is not None:
            call.run()
            del call


_idle: list[_Runner] = []
os.register_at_fork(after_in_child=_idle.clear)  # threads don't survive a fork; the next call makes new ones


def run_in_thread(function: Callable[[], R], context: Context, timeout_s: float) -> RunningCall[R]:
    """Run `function` in a pooled thread, within `context`, for at most `timeout_s`. An error is stored in the call.

    Raises:
        Overrun: the call did not end in time, and its thread was abandoned.

    """
    call = RunningCall(function, context)
    try:
        runner = _idle.pop()
    except IndexError:
        runner = _Runner()
    in_time = False
    try:
        runner.inbox.put(call)  # type: ignore[arg-type]
        in_time = call.wait(timeout_s)
    finally:  # a signal (Celery's soft time limit) can also end the wait
        if in_time and len(_idle) < MAX_IDLE:
            _idle.append(runner)
        else:
            runner.inbox.put(None)
    if not in_time:
        raise Overrun("may still be running")
    return call
