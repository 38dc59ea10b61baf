"""Kept threads that run a tool's function under a time limit.

A thread can't be stopped from outside. One that overruns is abandoned: it goes on until its function returns, what it
returns is dropped, and the thread ends; the next call gets a fresh one. Where that is not good enough (a lock held for
ever), the worker processes of the tools queue are killed by their hard time limit.
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
"""Threads kept waiting. More run when more calls are under way; the surplus ends with its call."""


class Overrun(Exception):
    """Raised when a call is not done in time. Says what is known of it now."""


class Call(Generic[R]):
    """One function to be run elsewhere, and what came of it."""

    __slots__ = ("_done", "context", "error", "function", "value")

    def __init__(self, function: Callable[[], R], context: Context) -> None:
        self.function = function
        self.context = context
        self.value: R | None = None
        self.error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        """In the thread that works. Whatever is raised, SystemExit included, is the call's, not the thread's."""
        try:
            self.value = self.context.run(self.function)
        except BaseException as error:
            self.error = error
        self.finished()

    def finished(self) -> None:
        """Wake the one who waits."""
        self._done.release()

    def wait(self, timeout_s: float) -> bool:
        """In the thread that asked. True when done."""
        return self._done.acquire(timeout=max(0.0, timeout_s))


class _Runner:
    """A thread and the queue it is fed through (C, no lock of ours)."""

    __slots__ = ("inbox",)

    def __init__(self) -> None:
        self.inbox: SimpleQueue[Call[object] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="midwatch-tool", daemon=True).start()

    def _serve(self) -> None:
        while (call := self.inbox.get()) is not None:
            call.run()
            del call


_idle: list[_Runner] = []
os.register_at_fork(after_in_child=_idle.clear)  # threads don't survive a fork; the next call makes new ones


def run_in_thread(function: Callable[[], R], context: Context, timeout_s: float) -> Call[R]:
    """Run `function` in a kept thread, within `context`, for at most `timeout_s`; its error, if any, is in the call.

    Raises:
        Overrun: it is not done in time; its thread is abandoned.

    """
    call = Call(function, context)
    try:
        runner = _idle.pop()
    except IndexError:
        runner = _Runner()
    in_time = False
    try:
        runner.inbox.put(call)  # type: ignore[arg-type]
        in_time = call.wait(timeout_s)
    finally:  # a signal (Celery's soft time limit) may end the wait, too
        if in_time and len(_idle) < MAX_IDLE:
            _idle.append(runner)
        else:
            runner.inbox.put(None)
    if not in_time:
        raise Overrun("may still be running")
    return call
