"""What a conversation has shown of a case so far, and what has to be asked next.

A procedure is written as if every answer were at hand. It starts over for each request and takes what was looked up
before from the history; the first thing that is missing is raised as a `Need`, and becomes the model's next calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from midwatch.workers.simulator.brains.brain import Conversation, Turn

Call = tuple[str, Mapping[str, object]]
"""A tool's name, and the arguments for it."""

MAX_CALLS = 8
"""Calls of one tool for one case, after which it is given up. A case without trouble needs three at most."""

_MAY_HAVE_RUN = re.compile(r"(ERROR: )?Error:|.*outcome of this call is unknown")
"""How the runtime words the failure of a call that it had begun. Any other error is a refusal: nothing ran."""

_IN_VAIN = re.compile(r"there is no |expected |a human rejected", re.IGNORECASE)
"""An answer that the very same call will get again."""


class Need(Exception):
    """Raised when the procedure can't go on without the results of these calls."""

    def __init__(self, why: str, *calls: Call) -> None:
        super().__init__(why)
        self.why = why
        self.calls = calls


class Stuck(Exception):
    """Raised when a tool says no for good, or fails again and again: somebody else must look at it."""


class Case:
    """What the conversation has shown since the user spoke last."""

    def __init__(self, conversation: Conversation) -> None:
        self.results = [turn for turn in conversation.since_user if turn.role == "tool"]

    def look_up(self, why: str, *calls: Call) -> list[Any]:
        """The results of these reads; all that are missing are asked for at once."""
        found = [self._first(call, 0) for call in calls]
        missing = [call for call, result in zip(calls, found, strict=True) if result is None]
        if missing:
            self._ask(why, *missing)
        return found

    def act(self, why: str, call: Call, look: Call, happened: Callable[[Any], bool]) -> None:
        """Have this done once. After a failure that may have come too late, `look` whether it `happened` after all."""
        tried = [number for number, turn in enumerate(self.results) if turn.tool == call[0]]
        if any(not self.results[number].is_error for number in tried):
            return
        if tried and _MAY_HAVE_RUN.match(self.results[tried[-1]].text):
            seen = self._first(look, tried[-1])
            if seen is None:
                self._ask(f"{call[0]} failed. Was it done all the same?", look)
            if happened(seen):
                return
        self._ask(why, call)

    def _first(self, call: Call, since: int) -> Any:
        """What the call was first answered since that result; None when it was not."""
        for turn in self.results[since:]:
            if turn.call and not turn.is_error and (turn.tool, turn.call.input) == call:
                return _decoded(turn)
        return None

    def _ask(self, why: str, *calls: Call) -> NoReturn:
        for tool, arguments in calls:
            told = [turn for turn in self.results if turn.tool == tool]
            if len(told) >= MAX_CALLS:
                raise Stuck(f"{tool} was called {MAX_CALLS} times")
            for turn in told:
                if turn.is_error and turn.call and turn.call.input == arguments and _IN_VAIN.search(turn.text):
                    raise Stuck(f"{tool} says: {turn.text[:200]}")
        raise Need(why, *calls)


def _decoded(turn: Turn) -> Any:
    """The JSON of a result; None when it is not JSON (any more), so that it is looked up again."""
    try:
        return json.loads(turn.text)
    except ValueError:
        return None
