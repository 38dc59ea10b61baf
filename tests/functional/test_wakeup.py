"""The pipe that wakes a consumer. A task that outlives its consumer never writes into another connection."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from midwatch.workers.process.wakeup import WakeupPipe, WakeupStep


class Hub:
    """The part of kombu's event loop that the consumer uses."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[..., object]] = {}

    def add_reader(self, number: int, callback: Callable[..., object], *_: object) -> None:
        """Register a callback for a file descriptor."""
        self.readers[number] = callback

    def remove_reader(self, number: int) -> None:
        """Remove the callback."""
        del self.readers[number]


class Pool:
    """A thread pool whose tasks end when the test ends them."""

    executor = object()

    def on_apply(self, *_: object, **__: object) -> Any:
        """Return a running task."""
        return SimpleNamespace(f=Future())


def test_the_end_of_a_task_wakes_the_loop() -> None:
    """The pipe holds a byte after a task ends. It is empty after the loop has read it."""
    hub, pool = Hub(), Pool()
    consumer = SimpleNamespace(hub=hub, pool=pool)
    step = WakeupStep(consumer)
    step.start(consumer)
    ((number, drain),) = hub.readers.items()
    pool.on_apply().f.set_result(None)
    assert os.read(number, 10) == b"x"
    drain(number)
    with pytest.raises(BlockingIOError):
        os.read(number, 10)
    step.stop(consumer)
    step.stop(consumer)
    assert hub.readers == {}


def test_a_task_that_outlives_its_consumer_writes_nothing() -> None:
    """The broker is lost during a call. The pipe's file descriptor becomes a vendor's connection, which gets no byte."""
    hub, pool = Hub(), Pool()
    consumer = SimpleNamespace(hub=hub, pool=pool)
    step = WakeupStep(consumer)
    step.start(consumer)
    task = pool.on_apply().f
    numbers = set(hub.readers)
    step.stop(consumer)
    with ExitStack() as connections:
        ends = [connections.enter_context(end) for _ in range(4) for end in socket.socketpair()]
        assert numbers & {end.fileno() for end in ends}, "the descriptor's number is used again"
        task.set_result(None)
        for end in ends:
            end.setblocking(False)
            with pytest.raises(BlockingIOError):
                end.recv(10)


def test_a_closed_pipe_reads_nothing() -> None:
    """The loop may still call the reader after `close`. It takes no byte from the descriptor's next owner."""
    pipe = WakeupPipe()
    pipe.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"reply")
        ours.send(b"request")
        pipe.drain()
        assert (ours.recv(10), theirs.recv(10)) == (b"reply", b"request")
