"""Virtual time: events in order, processes as generators, and places that processes wait for. An hour takes seconds."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

Resume = Callable[[], None]
Wait = Callable[[Resume], None]
"""Something to wait for: it is given what to call, once, when the wait is over."""

Process = Generator[float | Wait, None, T]
"""Yields how many seconds to let pass, or what to wait for; returns its result."""


class Simulation:
    """The clock and what is to happen. Deterministic: two events of the same moment happen in the order they were made."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.stopped = False
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def after(self, wait_s: float, act: Callable[..., None], *args: Any) -> None:
        """Call `act` in so many seconds."""
        heapq.heappush(self._events, (self.now_s + wait_s, next(self._numbers), act, args))

    def start(self, process: Process[T], ended: Callable[[T], None] = lambda result: None) -> None:
        """Run a process from now on; `ended` is given what it returns."""
        try:
            wait = next(process)
        except StopIteration as end:
            ended(end.value)
            return
        if callable(wait):
            wait(lambda: self.after(0.0, self.start, process, ended))
        else:
            self.after(wait, self.start, process, ended)

    def together(self, processes: Sequence[Process[bool]]) -> Process[bool]:
        """Run processes side by side; true when all of them returned true."""
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
        """Let time pass until somebody stops it, nothing is left to happen, or it is `until_s`."""
        while self._events and not self.stopped and self._events[0][0] <= until_s:
            self.now_s, _, act, args = heapq.heappop(self._events)
            act(*args)

    def stop(self) -> None:
        """End `run` after the event under way."""
        self.stopped = True


class Slots:
    """Places of all workers together: who finds none free waits in the order of coming, as a message in a queue does."""

    def __init__(self, number: int) -> None:
        self.free = number
        self._waiting: deque[Resume] = deque()

    def take(self, resume: Resume) -> None:
        """A `Wait` for one."""
        if self.free:
            self.free -= 1
            resume()
        else:
            self._waiting.append(resume)

    def give_back(self) -> None:
        """To the next in line."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self.free += 1
