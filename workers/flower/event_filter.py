"""Filter Celery's events before Flower stores them: ids and numbers pass, arguments, results and tracebacks do not.

Hiding content on the pages is not enough, because Flower's search, API and database use the stored events.
"""

from __future__ import annotations

import ast
import copy
import re
from typing import Any

from flower.events import Events

IDS = ("job_id", "session_id", "step")
"""Names of the arguments that are kept."""

HIDDEN = "hidden"

LONGEST_CHARS = 1_000

JOB_ROW = "job:"
"""Prefix of the name of a row for a whole job (`midwatch.workers.celery_app.flower_events`)."""


class FilteredEvents(Events):  # type: ignore[misc]
    """Flower's event thread with the filter."""

    def on_event(self, event: dict[str, Any]) -> None:
        """Receive an event in the thread, and store it in the event loop, which owns the state."""
        self.io_loop.add_callback(self.store, event)

    def store(self, event: dict[str, Any]) -> None:
        """Store the filtered event.

        A job's row is not a task, so it must not count as a task of its worker. Several workers may change a job's
        state, so an event may arrive after a later one. Such an event is dropped.
        """
        if not str(event.get("name", "")).startswith(JOB_ROW):
            self.state.event(without_content(event))
            return
        row = self.state.tasks.get(event["uuid"])
        if row is None or event["timestamp"] >= (row.timestamp or 0):
            self.state.event(without_content(event))
            self.state.counter[event["hostname"]][event["type"]] -= 1


def without_content(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event without content: only ids of the arguments, only the kind of an error."""
    if not str(event.get("type", "")).startswith("task-"):
        return event
    kept = {name: value for name, value in event.items() if name != "traceback"}
    for name, keep in _KEEP.items():
        if kept.get(name) is not None:
            kept[name] = keep(str(kept[name]))
    return kept


def format_task(task: Any) -> Any:
    """Hide content of a task that is shown. Flower calls this hook. It covers tasks from another Flower's database."""
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
