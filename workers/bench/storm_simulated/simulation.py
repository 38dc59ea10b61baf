"""Simulated time: events in order, processes as generators, and slots that processes wait for. An hour takes seconds."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

Resume = Callable[[], None]
Wait = Callable[[Resume], None]
"""A condition to wait for. It gets a function, and calls it once when the wait is over."""

Process = Generator[float | Wait, None, T]
"""A generator that yields what it waits for: a number of seconds, or a condition. Its return value is its result."""


class Simulation:
    """The clock and its events. It is deterministic: events of the same time happen in the order of their creation."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.stopped = False
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def call_later(self, wait_s: float, act: Callable[..., None], *args: Any) -> None:
        """Call `act` after `wait_s` seconds."""
        heapq.heappush(self._events, (self.now_s + wait_s, next(self._numbers), act, args))

    def start(self, process: Process[T], ended: Callable[[T], None] = lambda result: None) -> None:
        """Start a process now. `ended` is called with its result."""
        try:
            wait = next(process)
        except StopIteration as end:
            ended(end.value)
            return
        if callable(wait):
            wait(lambda: self.call_later(0.0, self.start, process, ended))
        else:
            self.call_later(wait, self.start, process, ended)

    def run_together(self, processes: Sequence[Process[bool]]) -> Process[bool]:
        """Run processes concurrently. Returns True if all of them returned True."""
        results: list[bool] = []

        def wait(resume: Resume) -> None:
            def ended(result: bool) -> None:
                results.append(result)
                if len(results) == len(processes):
                    resume()

            for process in processes:
                self.start(process, ended)

        yield wait
        return all(results)

    def run(self, until_s: float) -> None:
        """Run events until `stop` is called, no event is left, or the time is `until_s`."""
        while self._events and not self.stopped and self._events[0][0] <= until_s:
            self.now_s, _, act, args = heapq.heappop(self._events)
            act(*args)

    def stop(self) -> None:
        """End `run` after the current event."""
        self.stopped = True


class Slots:
    """The slots of all workers together. If none is free, processes wait in the order of arrival, like messages in a queue."""

    def __init__(self, number: int) -> None:
        self.free = number
        self._waiting: deque[Resume] = deque()

    def take(self, resume: Resume) -> None:
        """Wait for a free slot and take it."""
        if self.free:
            self.free -= 1
            resume()
        else:
            self._waiting.append(resume)

    def give_back(self) -> None:
        """Free a slot, or give it to the next process in line."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self.free += 1
