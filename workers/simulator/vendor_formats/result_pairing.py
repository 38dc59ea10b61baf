"""Checks that each tool call is followed by one result, as all vendors do.

A split group, or a call without a result, is a 400 at every vendor. If the simulator accepted it, tests would miss the
client's worst bug. Ids are matched one by one inside a turn, because real models repeat ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from midwatch.workers.simulator.brains.brain import ConversationTurn, SimulatedCall


@dataclass(frozen=True, slots=True)
class Result:
    """A tool result from the request. It names its call by id only."""

    call_id: str
    text: str
    is_error: bool = False


class UnansweredCalls(Exception):
    """Raised when tool calls have no result. `ids` are the ids of these calls."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__(", ".join(ids))
        self.ids = ids


class OrphanResult(Exception):
    """Raised when a result has no call in the turn before it. `call_id` is the id in the result."""

    def __init__(self, call_id: str) -> None:
        super().__init__(call_id)
        self.call_id = call_id


def pair_results(history: Iterable[ConversationTurn | Result]) -> tuple[ConversationTurn, ...]:
    """Pair each result with its call, and put the results of a turn in the order of its calls.

    Raises UnansweredCalls and OrphanResult.
    """
    turns: list[ConversationTurn] = []
    calls: tuple[SimulatedCall, ...] = ()
    found: dict[int, Result] = {}
    for entry in history:
        if isinstance(entry, Result):
            found[_find_call(calls, found, entry.call_id)] = entry
            continue
        turns.extend(_close_turn(calls, found))
        turns.append(entry)
        calls, found = entry.calls, {}
    turns.extend(_close_turn(calls, found))
    return tuple(turns)


def _find_call(calls: tuple[SimulatedCall, ...], found: dict[int, Result], call_id: str) -> int:
    """Find the call that this result belongs to: the first call with that id that has no result yet."""
    for ordinal, call in enumerate(calls):
        if call.id == call_id and ordinal not in found:
            return ordinal
    raise OrphanResult(call_id)


def _close_turn(calls: tuple[SimulatedCall, ...], found: dict[int, Result]) -> list[ConversationTurn]:
    missing = [call.id for ordinal, call in enumerate(calls) if ordinal not in found]
    if missing:
        raise UnansweredCalls(missing)
    return [
        ConversationTurn("tool", found[ordinal].text, call=call, is_error=found[ordinal].is_error)
        for ordinal, call in enumerate(calls)
    ]
