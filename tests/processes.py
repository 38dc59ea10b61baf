"""Which tests may start processes, and what stops the others.

A test may when it uses the `server` fixture, lies in one of the folders that are about processes, or bears the marker
`process`. `make fast` leaves these out. In every other test, in every run, the start of a process is refused and fails the test.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

WITHOUT = frozenset({"unit", "fundamentals", "properties"})
"""Folders below `tests/` whose tests start no process, but for those that say so."""

STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"})
"""Audit events of the interpreter: every way to a child process passes one of them."""


def may_start(item: pytest.Item) -> bool:
    """May this test start processes?"""
    if item.path.parent.name not in WITHOUT or item.get_closest_marker("process"):
        return True
    return "server" in getattr(item, "fixturenames", ())


class Guard:
    """Refuses the start of processes while it is up. An audit hook can't be removed, so there is one for the whole run."""

    def __init__(self) -> None:
        self._up = False
        self._refused: list[str] = []
        sys.addaudithook(self._look)

    @contextmanager
    def up(self) -> Iterator[list[str]]:
        """Within the block every start raises, and is in the list, in case the code under test hides the error."""
        self._up, self._refused = True, []
        try:
            yield self._refused
        finally:
            self._up = False

    def forget(self) -> None:
        """Leave out what was refused so far: for the test of the guard itself."""
        self._refused.clear()

    def _look(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._up and event in STARTS:
            self._refused.append(f"{event} {arguments[:2]}"[:200])
            raise RuntimeError(f"{event}: this test may not start processes; mark it `process` if it must")


GUARD = Guard()
