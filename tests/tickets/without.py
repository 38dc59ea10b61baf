"""Guarantees switched off, one at a time, inside worker processes: the negative controls. `TICKETS_WITHOUT=lease` and so on."""

from __future__ import annotations

from orchestration.store import scripts
from workers.steward import Steward


def _edit(script: str, old: str, new: str) -> None:
    """Change a script as this process sends it."""
    original = scripts.source.__wrapped__

    def edited(name: str) -> str:
        text = original(name)
        if script in ("*", name):
            assert old in text, f"{name}.lua has changed: adapt the negative control"
            text = text.replace(old, new)
        return text

    scripts.source = edited
    scripts._digest.cache_clear()


def lease() -> None:
    """A step that someone else holds may be claimed all the same."""
    _edit("claim", "if lost and row.till > now then return { 'busy', row.till - now } end", "")


def fence() -> None:
    """A commit is accepted from whoever comes, as long as it is for a job that runs; its row may be gone."""
    _edit("commit_results", "if held(step, fence) then", "if true then")


def steward() -> None:
    """Nobody brings back what was lost."""
    Steward.sweep = lambda self: -1  # type: ignore[method-assign]


def off(name: str) -> None:
    """Switch one off."""
    {"lease": lease, "fence": fence, "steward": steward}[name]()
