"""The process's one event loop, in a thread of its own, for tools that are coroutine functions.

A coroutine that is out of time is cancelled, and given a second to clean up. If it blocks the loop instead (a
`time.sleep` in an `async def`), the loop is given up with it and the next call starts another: one bad tool must not
stop all others.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from orchestration.toolthreads import Call, Overrun

CLEANUP_S = 1.0
"""How long a cancelled coroutine may take for its `finally` blocks."""


class _Loop:
    """A loop and its thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="midwatch-loop", daemon=True).start()


class _Task(Call[Any]):
    """A coroutine on its way through the loop."""

    __slots__ = ("cancelling", "task")

    def __init__(self, function: Callable[[], Coroutine[Any, Any, Any]], context: Context) -> None:
        super().__init__(function, context)
        self.task: asyncio.Task[Any] | None = None
        self.cancelling = False

    def start(self) -> None:
        """In the loop."""
        if self.cancelling:
            return
        try:
            self.task = asyncio.get_running_loop().create_task(self._guarded(), context=self.context)
        except BaseException as error:
            self.error = error
            self.finished()

    async def _guarded(self) -> None:
        """SystemExit in a task would end the loop's thread, so nothing gets out of here."""
        try:
            self.value = await self.function()
        except BaseException as error:
            self.error = error
        self.finished()

    def cancel(self, heard: threading.Event) -> None:
        """In the loop."""
        heard.set()
        if self.task is not None:
            self.task.cancel()


_lock = threading.Lock()
_current: _Loop | None = None
_given_up: list[_Loop] = []
"""Kept from being collected: a loop can't be closed while it runs, nor in another process than its own."""


def run_on_loop(function: Callable[[], Coroutine[Any, Any, Any]], context: Context, timeout_s: float) -> Call[Any]:
    """Run what `function()` returns on the loop, within `context`, for at most `timeout_s`; its error is in the call.

    Raises:
        Overrun: it was not done in time, and is cancelled.

    """
    home = _loop()
    task = _Task(function, context)
    home.loop.call_soon_threadsafe(task.start)
    in_time = False
    try:
        in_time = task.wait(timeout_s)
    finally:
        if not in_time:
            _stop(home, task)
    if not in_time:
        raise Overrun
    return task


def _stop(home: _Loop, task: _Task) -> None:
    heard = threading.Event()
    task.cancelling = True
    home.loop.call_soon_threadsafe(task.cancel, heard)
    if not heard.wait(CLEANUP_S):
        _give_up(home)
    elif task.task is not None:
        task.wait(CLEANUP_S)


def _loop() -> _Loop:
    global _current
    with _lock:
        if _current is None:
            _current = _Loop()
        return _current


def _give_up(home: _Loop) -> None:
    global _current
    with _lock:
        _given_up.append(home)
        if _current is home:
            _current = None
    home.loop.call_soon_threadsafe(home.loop.stop)  # its thread ends if it ever gets there


def _after_fork() -> None:
    """The child has the loop object but not its thread; the lock may have been held by a thread that is gone."""
    global _current, _lock
    _lock = threading.Lock()
    if _current is not None:
        _given_up.append(_current)
        _current = None


os.register_at_fork(after_in_child=_after_fork)
