"""Run tools that are coroutine functions: one event loop for the process, in a separate thread.

A coroutine that runs out of time is cancelled, and has one second to clean up. If it blocks the loop instead (with a
`time.sleep` in an `async def`), the loop is abandoned and the next call starts a new one. So one bad tool does not stop
the others.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from midwatch.orchestration.tools.threads import Overrun, RunningCall

CLEANUP_S = 1.0
"""How long a cancelled coroutine may take for its `finally` blocks."""


class _Loop:
    """An event loop and its thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self._serve, name="midwatch-loop", daemon=True).start()

    def _serve(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def call_soon(self, callback: Callable[..., None], *arguments: object) -> bool:
        """Schedule `callback` in the loop. Returns False if the loop has ended."""
        try:
            self.loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return False
        return True

    def wind_down(self) -> None:
        """Stop an abandoned loop when its last coroutine has ended. Runs in the loop."""
        if asyncio.all_tasks(self.loop):
            self.loop.call_later(1.0, self.wind_down)
        else:
            self.loop.stop()


class _Task(RunningCall[Any]):
    """One coroutine that runs in the loop."""

    __slots__ = ("cancelling", "task")

    def __init__(self, function: Callable[[], Coroutine[Any, Any, Any]], context: Context) -> None:
        super().__init__(function, context)
        self.task: asyncio.Task[Any] | None = None
        self.cancelling = False

    def start(self) -> None:
        """Create the task. Runs in the loop."""
        if self.cancelling:
            return
        try:
            self.task = asyncio.get_running_loop().create_task(self._run_guarded(), context=self.context)
        except BaseException as error:
            self.error = error
            self.finish()

    async def _run_guarded(self) -> None:
        """Catch everything: a SystemExit in a task would end the loop's thread."""
        try:
            self.value = await self.function()
        except BaseException as error:
            self.error = error
        self.finish()

    def cancel(self, received: threading.Event) -> None:
        """Cancel the task, and confirm that the loop is still running. Runs in the loop."""
        received.set()
        if self.task is not None:
            self.task.cancel()


_lock = threading.Lock()
_current: _Loop | None = None
_of_parent: list[_Loop] = []
"""After a fork: the parent's loops. They are kept from garbage collection, which would close them in the child."""


def run_on_loop(
    function: Callable[[], Coroutine[Any, Any, Any]], context: Context, timeout_s: float
) -> RunningCall[Any]:
    """Run the coroutine of `function()` in the loop, within `context`, for at most `timeout_s`.

    An error of the coroutine is stored in the returned call.

    Raises:
        Overrun: the coroutine did not end in time, and was cancelled.

    """
    task = _Task(function, context)
    loop = _current_loop()
    if not loop.call_soon(task.start):  # the loop was abandoned and ended at this moment
        loop = _current_loop()
        loop.call_soon(task.start)
    in_time = stopped = False
    try:
        in_time = task.wait(timeout_s)
    finally:  # a signal can also end the wait
        if not in_time:
            stopped = _stop(loop, task)
    if not in_time:
        raise Overrun("was cancelled" if stopped else "may still be running: it ignores its cancellation")
    return task


def _stop(loop: _Loop, task: _Task) -> bool:
    """Cancel the task. Returns True if it has ended."""
    received = threading.Event()
    task.cancelling = True
    loop.call_soon(task.cancel, received)
    if not received.wait(CLEANUP_S):
        _abandon(loop)
        return False
    return task.task is None or task.wait(CLEANUP_S)


def _current_loop() -> _Loop:
    global _current
    with _lock:
        if _current is None:
            _current = _Loop()
        return _current


def _abandon(loop: _Loop) -> None:
    global _current
    with _lock:
        if _current is loop:
            _current = None
    loop.call_soon(loop.wind_down)


def _after_fork() -> None:
    """Reset the child: it has the loop object but not its thread, and the lock may be held by a thread of the parent."""
    global _current, _lock
    _lock = threading.Lock()
    if _current is not None:
        _of_parent.append(_current)
        _current = None


os.register_at_fork(after_in_child=_after_fork)
