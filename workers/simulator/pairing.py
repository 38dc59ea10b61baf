"""Every tool call has one result, right after it: the rule all vendors enforce, checked here as they check it.

A window that splits a group, or a call that nobody answered, is a 400 at every vendor; a simulator that let it pass
would let the client's worst bug pass. Ids are matched one for one inside a turn, because real models repeat them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from midwatch.workers.simulator.brains.brain import Call, Turn


@dataclass(frozen=True, slots=True)
class Result:
    """A tool result as it came: it names its call by id only."""

    call_id: str
    text: str
    is_error: bool = False


class UnansweredCalls(Exception):
    """Raised when something else than the result follows a tool call. `ids` are the calls without one."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__(", ".join(ids))
        self.ids = ids


class OrphanResult(Exception):
    """Raised when a result answers no call of the turn before it. `call_id` is the id it names."""

    def __init__(self, call_id: str) -> None:
        super().__init__(call_id)
        self.call_id = call_id


def pair(history: Iterable[Turn | Result]) -> tuple[Turn, ...]:
    """The history with each result tied to its call, the results of a turn in the order of its calls.

    Raises UnansweredCalls and OrphanResult.
    """
    turns: list[Turn] = []
    calls: tuple[Call, ...] = ()
    found: dict[int, Result] = {}
    for entry in history:
        if isinstance(entry, Result):
            found[_ordinal(calls, found, entry.call_id)] = entry
            continue
        turns.extend(_close(calls, found))
        turns.append(entry)
        calls, found = entry.calls, {}
    turns.extend(_close(calls, found))
    return tuple(turns)


def _ordinal(calls: tuple[Call, ...], found: dict[int, Result], call_id: str) -> int:
    """Which call of the open turn this result answers: the first of that id that has none yet."""
    for ordinal, call in enumerate(calls):
        if call.id == call_id and ordinal not in found:
            return ordinal
    raise OrphanResult(call_id)


def _close(calls: tuple[Call, ...], found: dict[int, Result]) -> list[Turn]:
    missing = [call.id for ordinal, call in enumerate(calls) if ordinal not in found]
    if missing:
        raise UnansweredCalls(missing)
    return [
        Turn("tool", found[ordinal].text, call=call, is_error=found[ordinal].is_error)
        for ordinal, call in enumerate(calls)
    ]
