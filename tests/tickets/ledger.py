"""The downstream of the recorded tools: an append-only file for each ticket, independent of Redis, with idempotency keys.

Every call appends a line, so the file shows each attempt. An *effect* is the first line of a key.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One attempt that reached the downstream."""

    key: str
    tool: str
    arguments: str
    effect: bool


class Ledger:
    """The entries of one ticket."""

    def __init__(self, folder: Path, session_id: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{session_id}.jsonl"

    def apply(self, key: str, tool: str, arguments: str) -> int:
        """Apply a call. Return which occurrence of (tool, arguments) it is, from 0. A repeated key applies nothing."""
        with self._path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            entries = [json.loads(line) for line in file]
            effects = [e for e in entries if e["effect"] and (e["tool"], e["arguments"]) == (tool, arguments)]
            known = [n for n, e in enumerate(effects) if e["key"] == key]
            line = {"key": key, "tool": tool, "arguments": arguments, "effect": not known, "t": time.time()}
            file.write(json.dumps(line) + "\n")
            file.flush()
            return known[0] if known else len(effects)

    def entries(self) -> list[Entry]:
        """Return all attempts in order."""
        if not self._path.exists():
            return []
        rows = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [Entry(row["key"], row["tool"], row["arguments"], row["effect"]) for row in rows]

    def effects(self) -> Counter[tuple[str, str]]:
        """Return how often each (tool, arguments) took effect."""
        return Counter((entry.tool, entry.arguments) for entry in self.entries() if entry.effect)
