"""The bell that wakes a consumer: a task that outlives its consumer rings into nothing, never into another connection."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from midwatch.workers.process.wakeup import Bell, WakeupStep


class Hub:
    """The part of kombu's event loop that the step asks for."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[..., object]] = {}

    def add_reader(self, number: int, callback: Callable[..., object], *_: object) -> None:
        """Call it when there is something to read."""
        self.readers[number] = callback

    def remove_reader(self, number: int) -> None:
        """No more."""
        del self.readers[number]


class Pool:
    """A pool of threads whose tasks end when the test says so."""

    executor = object()

    def on_apply(self, *_: object, **__: object) -> Any:
        """A task that is under way."""
        return SimpleNamespace(f=Future())


def test_the_end_of_a_task_is_heard() -> None:
    """Something lies in the pipe until the loop has turned, then nothing."""
    hub, pool = Hub(), Pool()
    consumer = SimpleNamespace(hub=hub, pool=pool)
    step = WakeupStep(consumer)
    step.start(consumer)
    ((number, heard),) = hub.readers.items()
    pool.on_apply().f.set_result(None)
    assert os.read(number, 10) == b"x"
    heard(number)
    with pytest.raises(BlockingIOError):
        os.read(number, 10)
    step.stop(consumer)
    step.stop(consumer)
    assert hub.readers == {}


def test_a_task_that_outlives_its_consumer_writes_into_no_other_connection() -> None:
    """The broker is lost in mid-call, and the number of the pipe becomes a vendor's connection: not a byte goes there."""
    hub, pool = Hub(), Pool()
    consumer = SimpleNamespace(hub=hub, pool=pool)
    step = WakeupStep(consumer)
    step.start(consumer)
    task = pool.on_apply().f
    numbers = set(hub.readers)
    step.stop(consumer)
    with ExitStack() as connections:
        ends = [connections.enter_context(end) for _ in range(4) for end in socket.socketpair()]
        assert numbers & {end.fileno() for end in ends}, "its number is used again"
        task.set_result(None)
        for end in ends:
            end.setblocking(False)
            with pytest.raises(BlockingIOError):
                end.recv(10)


def test_a_closed_bell_reads_nobody_elses_bytes() -> None:
    """A turn of the loop that was due when the bell was closed takes nothing from the next owner of its number."""
    bell = Bell()
    bell.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"reply")
        ours.send(b"request")
        bell.heard()
        assert (ours.recv(10), theirs.recv(10)) == (b"reply", b"request")
