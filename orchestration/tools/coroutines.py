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

from midwatch.orchestration.tools.threads import Call, Overrun

CLEANUP_S = 1.0
"""How long a cancelled coroutine may take for its `finally` blocks."""


class _Loop:
    """A loop and its thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self._serve, name="midwatch-loop", daemon=True).start()

    def _serve(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def tell(self, callback: Callable[..., None], *arguments: object) -> bool:
        """Have `callback` called in the loop; False when the loop has ended."""
        try:
            self.loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return False
        return True

    def wind_down(self) -> None:
        """In the loop, once it was given up and can be reached again: end when the last of its coroutines has."""
        if asyncio.all_tasks(self.loop):
            self.loop.call_later(1.0, self.wind_down)
        else:
            self.loop.stop()


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
_of_parent: list[_Loop] = []
"""After a fork: kept from being collected, because a loop must not be closed in another process than its own."""


def run_on_loop(function: Callable[[], Coroutine[Any, Any, Any]], context: Context, timeout_s: float) -> Call[Any]:
    """Run what `function()` returns on the loop, within `context`, for at most `timeout_s`; its error is in the call.

    Raises:
        Overrun: it was not done in time, and is cancelled.

    """
    task = _Task(function, context)
    home = _loop()
    if not home.tell(task.start):  # given up and ended in this very moment
        home = _loop()
        home.tell(task.start)
    in_time = stopped = False
    try:
        in_time = task.wait(timeout_s)
    finally:  # a signal may end the wait, too
        if not in_time:
            stopped = _stop(home, task)
    if not in_time:
        raise Overrun("was cancelled" if stopped else "may still be running: it does not heed its cancellation")
    return task


def _stop(home: _Loop, task: _Task) -> bool:
    """Cancel; True when it has ended."""
    heard = threading.Event()
    task.cancelling = True
    home.tell(task.cancel, heard)
    if not heard.wait(CLEANUP_S):
        _give_up(home)
        return False
    return task.task is None or task.wait(CLEANUP_S)


def _loop() -> _Loop:
    global _current
    with _lock:
        if _current is None:
            _current = _Loop()
        return _current


def _give_up(home: _Loop) -> None:
    global _current
    with _lock:
        if _current is home:
            _current = None
    home.tell(home.wind_down)


def _after_fork() -> None:
    """The child has the loop object but not its thread; the lock may have been held by a thread that is gone."""
    global _current, _lock
    _lock = threading.Lock()
    if _current is not None:
        _of_parent.append(_current)
        _current = None


os.register_at_fork(after_in_child=_after_fork)
