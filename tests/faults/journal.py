"""A journal file in which tools and models write what they did, and gates that hold them until a test opens them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from midwatch import ToolContext
from tests.patience import PATIENCE_S

VARIABLE = "FAULTS_FOLDER"
LONGEST_HOLD_S = PATIENCE_S


@dataclass(frozen=True)
class Line:
    """One event."""

    event: str
    """`began` and `ended` for a tool, `model` and `replied` for a model call."""
    word: str
    pid: int
    key: str
    attempt: int


class Journal:
    """Each line is one write, so lines of several processes do not mix, and a killed process leaves no partial line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "journal.jsonl"

    @classmethod
    def from_environment(cls) -> Journal:
        """Return the journal of the worker's own crew."""
        return cls(Path(os.environ[VARIABLE]))

    def write(self, event: str, word: str, context: ToolContext | None = None) -> None:
        """Write an event."""
        key, attempt = (context.idempotency_key, context.attempt) if context else ("", 0)
        line = {"event": event, "word": word, "pid": os.getpid(), "key": key, "attempt": attempt}
        with self._path.open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")

    def lines(self) -> list[Line]:
        """Return all lines so far, in order."""
        if not self._path.exists():
            return []
        return [Line(**json.loads(line)) for line in self._path.read_text().splitlines()]

    def of(self, word: str, event: str = "began") -> list[Line]:
        """Return the lines of one word and one event."""
        return [line for line in self.lines() if line.word == word and line.event == event]

    def open_gate(self, *words: str) -> None:
        """Open the gates of these words, for present and future waiters."""
        for word in words:
            (self.folder / f"{word}.open").touch()

    def is_open(self, word: str) -> bool:
        """Return whether the gate is open."""
        return (self.folder / f"{word}.open").exists()

    def await_gate(self, word: str) -> None:
        """Wait until the gate is open. A gate that a test forgets to open ends the wait with an error."""
        give_up = time.monotonic() + LONGEST_HOLD_S
        while not self.is_open(word):
            if time.monotonic() > give_up:
                raise TimeoutError(f"the gate {word!r} was not opened within {LONGEST_HOLD_S:g} s")
            time.sleep(0.01)
