"""The share of needed facts that was kept, per session: the mean over sessions and the worst one, and held-out sessions apart.

A sum over sessions says little, because one table of a thousand rows has nine tenths of all facts. The rules of the
facts ledger were fitted on two thirds of the recorded sessions. The other third is held out: a digest of the file's
name and the session's id decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

HELD_OUT_OF = 3
"""One in so many sessions is held out."""


def is_held_out(path: Path, name: str) -> bool:
    """Is this session held out? The key is the first word of the file's name and the session's id: `toolathlon:<id>`."""
    key = f"{path.name.partition('_')[0]}:{name}"
    return int(sha256(key.encode()).hexdigest(), 16) % HELD_OUT_OF == 0


def summarize_sessions(path: Path, transcripts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for all sessions, one for the held-out ones, one for the others."""
    held = [row for row in transcripts if is_held_out(path, row["name"])]
    others = [row for row in transcripts if not is_held_out(path, row["name"])]
    parts = (("all sessions", transcripts), ("held out", held), ("not held out", others))
    return [_summarize(name, rows) for name, rows in parts]


def _summarize(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and worst share of the sessions that needed a fact. None if there is no such session."""
    kept = [row["kept_percent"] for row in rows if row["facts_needed"]]
    return {
        "name": f"{name}: mean of {len(kept)}",
        "sessions": len(rows),
        "sessions_in_need": len(kept),
        "kept_percent": round(sum(kept) / len(kept), 1) if kept else None,
        "worst_percent": min(kept) if kept else None,
        "compactions": sum(row["compactions"] for row in rows),
    }
