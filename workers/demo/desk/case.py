"""The state of a case, read from the conversation, and the calls that are needed next.

A procedure is written as if all tool results were known. It starts from the beginning for each request and takes earlier
results from the conversation. The first missing result raises a `Need`, whose calls become the model's next calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from midwatch.workers.simulator.brains.brain import Conversation, ConversationTurn

Call = tuple[str, Mapping[str, object]]
"""A tool's name and its arguments."""

MAX_CALLS = 8
"""After this many calls of one tool a case is given up. A normal case needs at most three."""

_MAY_HAVE_RUN = re.compile(r"(ERROR: )?Error:|.*outcome of this call is unknown")
"""The runtime's text for a failed call that had started. After any other error nothing has run."""

_PERMANENT = re.compile(r"there is no |expected |a human rejected", re.IGNORECASE)
"""Texts of errors that the same call will get again."""


class Need(Exception):
    """Raised when the procedure needs the results of these calls."""

    def __init__(self, why: str, *calls: Call) -> None:
        super().__init__(why)
        self.why = why
        self.calls = calls


class Stuck(Exception):
    """Raised when a tool refuses permanently or fails too often. The case then goes to a human team."""


class Case:
    """The tool results since the last user message."""

    def __init__(self, conversation: Conversation) -> None:
        self.results = [turn for turn in conversation.since_user if turn.role == "tool"]

    def look_up(self, why: str, *calls: Call) -> list[Any]:
        """Return the results of these read calls. If some are missing, raise one `Need` for all of them."""
        found = [self._first(call, 0) for call in calls]
        missing = [call for call, result in zip(calls, found, strict=True) if result is None]
        if missing:
            self._request(why, *missing)
        return found

    def act(self, why: str, call: Call, look: Call, happened: Callable[[Any], bool]) -> None:
        """Make this write call once. After a failure that may have come after the work, check with the call `look`."""
        tries = [number for number, turn in enumerate(self.results) if turn.tool == call[0]]
        if any(not self.results[number].is_error for number in tries):
            return
        if tries and _MAY_HAVE_RUN.match(self.results[tries[-1]].text):
            seen = self._first(look, tries[-1])
            if seen is None:
                self._request(f"{call[0]} failed. Did it take effect?", look)
            if happened(seen):
                return
        self._request(why, call)

    def _first(self, call: Call, since: int) -> Any:
        """Return the first result of the call since that place in the results, or None."""
        for turn in self.results[since:]:
            if turn.call and not turn.is_error and (turn.tool, turn.call.input) == call:
                return _decode(turn)
        return None

    def _request(self, why: str, *calls: Call) -> NoReturn:
        for tool, arguments in calls:
            earlier = [turn for turn in self.results if turn.tool == tool]
            if len(earlier) >= MAX_CALLS:
                raise Stuck(f"{tool} was called {MAX_CALLS} times")
            for turn in earlier:
                if turn.is_error and turn.call and turn.call.input == arguments and _PERMANENT.search(turn.text):
                    raise Stuck(f"{tool} says: {turn.text[:200]}")
        raise Need(why, *calls)


def _decode(turn: ConversationTurn) -> Any:
    """Decode the JSON of a result. Returns None if it was replaced by other text; then the call is made again."""
    try:
        return json.loads(turn.text)
    except ValueError:
        return None
