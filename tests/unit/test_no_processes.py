"""The promise of `make fast`: its tests start no process, and one that tries fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import get_context

import pytest

from tests.processes import GUARD

STARTS: dict[str, Callable[[], object]] = {
    "subprocess": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "system": lambda: os.system("true"),
    "multiprocessing": lambda: get_context("spawn").Process(target=print).start(),
    "posix_spawn": lambda: os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}),
}


@pytest.mark.process  # switches the run's own guard off, because this test uses another one
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_process_without_the_marker_is_refused_and_seen(start: Callable[[], object]) -> None:
    """The start raises an error. The guard also records it, in case the code under test hides the error."""
    with GUARD.up() as refused, pytest.raises(RuntimeError, match="may not start processes"):
        start()
    assert len(refused) == 1


def test_the_guard_is_up_in_a_test_without_the_marker() -> None:
    """This test has no marker, so it can't start a process."""
    with pytest.raises(RuntimeError, match="may not start processes"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    GUARD.forget()
