"""Guarantees switched off, one at a time, inside worker processes: the negative controls. `TICKETS_WITHOUT=lease` and so on."""

from __future__ import annotations

from midwatch.orchestration.store.script_library import Library
from midwatch.workers.process.steward import Steward


def _edit(script: str, old: str, new: str) -> None:
    """Change a script as this process sends it."""
    original = Library.read

    def edited(library: Library, name: str) -> str:
        text = original(library, name)
        if name == script:
            assert old in text, f"{name}.lua has changed: adapt the negative control"
            text = text.replace(old, new)
        return text

    Library.read = edited  # type: ignore[method-assign]
    Library.source.cache_clear()
    Library.command.cache_clear()


def lease() -> None:
    """A step that someone else holds may be claimed all the same."""
    _edit("claim", "if lost and row.till > now then return { 'busy', row.till - now } end", "")


def fence() -> None:
    """A commit is accepted from whoever comes, as long as it is for a job that runs; its row may be gone."""
    _edit("commit_results", "if is_held(step, fence) then", "if true then")


def steward() -> None:
    """Nobody brings back what was lost."""
    Steward.sweep = lambda self: -1  # type: ignore[method-assign]


def off(name: str) -> None:
    """Switch one off."""
    {"lease": lease, "fence": fence, "steward": steward}[name]()
