"""What Flower takes in of Celery's events: ids and numbers. Arguments, results and tracebacks stay out of its memory.

Leaving them out where they are shown would not do: Flower's search, its API and its database read what is kept.
"""

from __future__ import annotations

import ast
import copy
import re
from typing import Any

from flower.events import Events

IDS = ("job_id", "session_id", "step")
"""The arguments that are kept."""

HIDDEN = "hidden"

LONGEST_CHARS = 1_000

JOB_ROW = "job:"
"""What the name of a row that stands for a whole job begins with (`midwatch.workers.celery_app.flower_events`)."""


class Intake(Events):  # type: ignore[misc]
    """Flower's event thread."""

    def on_event(self, event: dict[str, Any]) -> None:
        """Called in the thread; the state belongs to the loop."""
        self.io_loop.add_callback(self.take, event)

    def take(self, event: dict[str, Any]) -> None:
        """Keep what may be kept.

        A job's row is no task: it must not count as one that its worker has done. And several workers move it, so an
        event may come after the one that followed it: that one is left out.
        """
        if not str(event.get("name", "")).startswith(JOB_ROW):
            self.state.event(without_content(event))
            return
        row = self.state.tasks.get(event["uuid"])
        if row is None or event["timestamp"] >= (row.timestamp or 0):
            self.state.event(without_content(event))
            self.state.counter[event["hostname"]][event["type"]] -= 1


def without_content(event: dict[str, Any]) -> dict[str, Any]:
    """The event without what anybody said: only ids of the arguments, only the kind of an error."""
    if not str(event.get("type", "")).startswith("task-"):
        return event
    kept = {name: value for name, value in event.items() if name != "traceback"}
    for name, keep in _KEEP.items():
        if kept.get(name) is not None:
            kept[name] = keep(str(kept[name]))
    return kept


def format_task(task: Any) -> Any:
    """Flower's own hook, called where a task is shown: for tasks that a database of another Flower has kept."""
    shown = copy.copy(task)
    for name, keep in {**_KEEP, "traceback": _hide}.items():
        if getattr(shown, name, None) is not None:
            setattr(shown, name, keep(str(getattr(shown, name))))
    return shown


def _ids(text: str) -> str:
    try:
        given = ast.literal_eval(text) if len(text) <= LONGEST_CHARS else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return HIDDEN
    return repr({name: given[name] for name in IDS if isinstance(given.get(name), str)})


def _hide(text: str) -> str:
    return text if text in ("", "()", "{}", "None", "''", HIDDEN) else HIDDEN


def _error_kind(text: str) -> str:
    found = re.match(r"[A-Za-z_][\w.]*", text)
    return found.group() if found else HIDDEN


_KEEP = {"args": _hide, "kwargs": _ids, "result": _hide, "exception": _error_kind}
