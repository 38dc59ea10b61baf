"""Ways in which a tool ends the process that runs it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def kill() -> None:
    """As the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_late() -> None:
    """Meanwhile the worker takes other steps."""
    time.sleep(2.0)
    kill()


def segfault() -> None:
    """Read the address 0."""
    ctypes.string_at(0)


def leave() -> None:
    """As a library does that thinks that it is the whole program."""
    os._exit(0)


def recurse() -> None:
    """Recurse in C until the stack is full."""
    nested: list[object] = []
    for _ in range(1_000_000):
        nested = [nested]
    sys.setrecursionlimit(1_000_000_000)
    repr(nested)


def allocate() -> None:
    """Use all memory that this process may have, then abort, as a C library does whose allocation fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 200_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    blocks = []
    try:
        while True:
            blocks.append(bytearray(20_000_000))
    except MemoryError:
        os.abort()


def kill_both() -> None:
    """Kill this process together with the worker that started it. Not its own starter, if this is the worker."""
    parent = psutil.Process().parent()
    if parent and "midwatch.workers.cli" in parent.cmdline():
        parent.kill()
    kill()


WAYS: dict[str, tuple[Callable[[], None], str]] = {
    "kill": (kill, "SIGKILL"),
    "segfault": (segfault, "SIGSEGV"),
    "leave": (leave, "exit code 0"),
    "recurse": (recurse, "SIGSEGV"),
    "allocate": (allocate, "SIGABRT"),
    "late": (kill_late, "SIGKILL"),
    "both": (kill_both, ""),
}
"""Each way with what a dead letter says about it."""


def crash(way: str) -> None:
    """End this process in this way."""
    WAYS[way][0]()
