"""Marks that tools leave in files, and gates they wait at: how a test sees into worker processes, and holds them.

A mark is one line appended in one write, so marks of many processes never mix. A gate is a file: closed while missing.
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
"""Environment variable: the folder that workers and the test share."""

LONGEST_WAIT_S = PATIENCE_S
"""Nothing waits longer: a test that forgot to open a gate fails, and its worker goes on."""


def folder() -> Path:
    """Where marks and gates lie."""
    return Path(os.environ[FOLDER])


def mark(name: str, value: object) -> None:
    """Append one mark."""
    with (folder() / f"{name}.marks").open("a") as file:
        file.write(json.dumps(value) + "\n")


def marks(name: str) -> list[Any]:
    """All marks of that name so far, oldest first."""
    file = folder() / f"{name}.marks"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def open_gate(name: str) -> None:
    """Let everybody through from now on."""
    (folder() / f"{name}.gate").touch()


def is_open(name: str) -> bool:
    """Has somebody opened it?"""
    return (folder() / f"{name}.gate").exists()


def until(reached: Callable[[], bool], longest_s: float = LONGEST_WAIT_S) -> bool:
    """Wait for it, looking every 5 ms. False: it did not happen in time."""
    give_up = time.monotonic() + longest_s
    while not reached():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.005)
    return True
