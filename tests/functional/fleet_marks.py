"""Marks and gates: tools in worker processes write marks to files and wait at gates, so a test can see and hold them.

A mark is one line, appended in one write, so marks of many processes never mix. A gate is a file, and it is closed while the
file is missing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE_S

FOLDER = "FLEET_MARKS"
"""Environment variable with the folder that workers and the test share."""

LONGEST_WAIT_S = PATIENCE_S
"""The longest wait at a gate. If a test forgets to open a gate, the test fails and its worker goes on."""


def folder() -> Path:
    """Return the folder of marks and gates."""
    return Path(os.environ[FOLDER])


def mark(name: str, value: object) -> None:
    """Append one mark."""
    with (folder() / f"{name}.marks").open("a") as file:
        file.write(json.dumps(value) + "\n")


def marks(name: str) -> list[Any]:
    """Return all marks with this name so far, oldest first."""
    file = folder() / f"{name}.marks"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def open_gate(name: str) -> None:
    """Open the gate for all present and future waiters."""
    (folder() / f"{name}.gate").touch()


def is_open(name: str) -> bool:
    """Return whether the gate is open."""
    return (folder() / f"{name}.gate").exists()


def until(reached: Callable[[], bool], longest_s: float = LONGEST_WAIT_S) -> bool:
    """Wait until a condition holds, checking every 5 ms. Return False if it did not hold in time."""
    give_up = time.monotonic() + longest_s
    while not reached():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.005)
    return True
