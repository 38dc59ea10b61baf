"""Guarantees switched off one at a time inside worker processes, for the negative controls: `TICKETS_WITHOUT=lease` and so on."""

from __future__ import annotations

from midwatch.orchestration.store.script_library import Library
from midwatch.workers.process import runtime
from midwatch.workers.process.steward import Steward


def _edit(script: str, old: str, new: str) -> None:
    """Change a script before this process sends it."""
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
    """Allow a claim of a step that another worker holds. Such a claim counts as a loss, so suspects must not run alone."""
    isolation()
    _edit("claim", "if lost and row.till > now then return { 'busy', row.till - now } end", "")


def fence() -> None:
    """Accept a commit from any worker for a running job, even if the step's row is gone."""
    _edit("commit_results", "if is_held(step, fence) then", "if true then")


def steward() -> None:
    """Publish no lost step again."""
    Steward.sweep = lambda self: -1  # type: ignore[method-assign]


def isolation() -> None:
    """Never run a step alone. So no loss is ever proven."""
    runtime.Isolation = lambda: None  # type: ignore[misc, assignment]


def suspects() -> None:
    """Count every loss against every step that ran in the worker, as earlier releases did."""
    isolation()
    _edit("claim", "unproven >= tonumber(max_losses)", "unproven >= 3")


def off(name: str) -> None:
    """Switch one guarantee off."""
    {"lease": lease, "fence": fence, "steward": steward, "isolation": isolation, "suspects": suspects}[name]()
