"""Which tests may start processes, and a guard that stops the others.

A test may start processes if it uses the `server` fixture, lies in one of the folders for such tests, or has the marker
`process`. `make fast` leaves these tests out. In every other test, in every run, the start of a process is refused and fails
the test.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import util
from typing import Any

import pytest

WITHOUT = frozenset({"unit", "fundamentals", "properties"})
"""Folders below `tests/` whose tests start no process unless they say so."""

STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"})
"""Audit events of the interpreter. Every way to start a child process raises one of them, except `multiprocessing`."""

SPAWN = "multiprocessing.util.spawnv_passfds"
"""The function with which `multiprocessing` starts a child, unless it forks. It raises no audit event."""


def may_start(item: pytest.Item) -> bool:
    """Return whether this test may start processes."""
    if item.path.parent.name not in WITHOUT or item.get_closest_marker("process"):
        return True
    return "server" in getattr(item, "fixturenames", ())


class Guard:
    """Refuses the start of processes while it is active. An audit hook can't be removed, so there is one for the whole run."""

    def __init__(self) -> None:
        self._up = False
        self._refused: list[str] = []
        sys.addaudithook(self._look)
        self._watch_multiprocessing()

    @contextmanager
    def up(self) -> Iterator[list[str]]:
        """Within the block every start raises an error. It is also recorded, in case the code under test hides the error."""
        self._up, self._refused = True, []
        try:
            yield self._refused
        finally:
            self._up = False

    def forget(self) -> None:
        """Forget what was refused so far. Only the guard's own test uses this."""
        self._refused.clear()

    def _watch_multiprocessing(self) -> None:
        spawn = util.spawnv_passfds

        def look_and_spawn(*arguments: Any) -> int:
            self._refuse(SPAWN, arguments)
            return spawn(*arguments)

        util.spawnv_passfds = look_and_spawn

    def _look(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in STARTS:
            self._refuse(event, arguments)

    def _refuse(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._up:
            self._refused.append(f"{event} {arguments[:2]}"[:200])
            raise RuntimeError(f"{event}: this test may not start processes; mark it `process` if it must")


GUARD = Guard()
