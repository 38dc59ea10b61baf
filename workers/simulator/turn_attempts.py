"""Counts how often each turn of each conversation was requested, and how many of the requests had a fault."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

REMEMBERED_TURNS = 200_000


@dataclass(slots=True)
class TurnAttempts:
    """The requests for one turn of one conversation."""

    count: int = 0
    faulted: int = 0


class AttemptCounts:
    """The attempts of every turn. If there are too many turns, the oldest are dropped."""

    def __init__(self) -> None:
        self._attempts: OrderedDict[tuple[str, int], TurnAttempts] = OrderedDict()

    def count(self, key: str, turn: int) -> TurnAttempts:
        """Count one attempt, and return the counts of its turn."""
        attempts = self._attempts.setdefault((key, turn), TurnAttempts())
        attempts.count += 1
        if len(self._attempts) > REMEMBERED_TURNS:
            self._attempts.popitem(last=False)
        return attempts
