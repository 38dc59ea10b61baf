r"""How many steps a search with a regular expression may take, at most: what bounds the time of a `pattern`.

Patterns of exponential time are refused where they are declared (see `regexsafety`). What is left is polynomial, and
that is enough: `\d+$` looked for in 30,000 digits took five seconds (measured). So a text is matched only when the
worst case for its length is within what the call may still spend.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from midwatch.orchestration.validation.automaton import Part, TooLarge
from midwatch.orchestration.validation.regex_safety import Reading, parsed

MAX_JUDGED_POSITIONS = 12
"""Three readers in a pattern of so many positions: 1,728 places to be. Larger patterns are taken for the worst."""

_LOOPS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


@dataclass(frozen=True)
class PatternCost:
    """A compiled pattern, and what decides how long it may take."""

    expression: re.Pattern[str]
    anchored: bool
    """It is tried at the beginning of a text only."""
    loops: tuple[int, ...]
    """For each repetition with a choice: how often at most."""
    linear: bool
    """However the loops divide a text among themselves, there is a bounded number of ways."""

    def steps(self, size_chars: int) -> int:
        """An upper bound for a text of this length."""
        starts = 1 if self.anchored else size_chars + 1
        if self.linear:
            return starts * (size_chars + 1 if self.loops else 1)
        return starts * prod(min(high, size_chars) + 1 for high in self.loops)


@lru_cache(maxsize=4_096)
def pattern_cost(pattern: str) -> PatternCost:
    """The cost of a pattern that `hazard` has accepted."""
    tree = parsed(pattern)
    loops = tuple(_loops(tree))
    return PatternCost(re.compile(pattern), _anchored(tree), loops, not loops or _is_linear(tree))


def _loops(items: Any) -> Iterator[int]:
    for op, value in items:
        if str(op) in _LOOPS:
            low, high, body = value
            if low != high:
                yield int(high)
            yield from _loops(body)
        else:
            for inner in _inner(str(op), value):
                yield from _loops(inner)


def _inner(op: str, value: Any) -> Iterator[Any]:
    """The sequences that an item of the parser's tree holds."""
    if op == "SUBPATTERN":
        yield value[3]
    elif op == "ATOMIC_GROUP":
        yield value
    elif op == "BRANCH":
        yield from value[1]
    elif op == "GROUPREF_EXISTS":
        yield from (branch for branch in value[1:] if branch)
    elif op in ("ASSERT", "ASSERT_NOT"):
        yield value[1]


def _anchored(tree: Any) -> bool:
    if tree.state.flags & re.MULTILINE or not len(tree):
        return False
    op, value = tree[0]
    if str(op) == "SUBPATTERN":
        return _anchored(value[3])
    if str(op) == "BRANCH":
        return all(_anchored(branch) for branch in value[1])
    return str(op) == "AT" and str(value) in ("AT_BEGINNING", "AT_BEGINNING_STRING")


def _is_linear(tree: Any) -> bool:
    if any(op in str(tree) for op in ("ASSERT", "GROUPREF")):
        return False  # they read what the automaton does not see
    try:
        reading = _WholeReading(tree)
        return not reading.automaton.divisible(MAX_JUDGED_POSITIONS)
    except (TooLarge, RecursionError):
        return False


class _WholeReading(Reading):
    r"""Reads also what stands between the loops: `^\d+-\d+$` is linear because of its hyphen."""

    def _position(self, op: str, value: Any) -> Part:
        return self.automaton.position(frozenset(c for c in self.alphabet if self._fits(op, value, c)))
