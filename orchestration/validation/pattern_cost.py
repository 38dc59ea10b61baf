r"""Compute the most steps that a search with a regular expression can take. This limits the time of a `pattern`.

A schema with a pattern of exponential time is refused when it is declared (see `regex_safety`). The other patterns are
polynomial, which can still be slow: a search for `\d+$` in 30,000 digits took five seconds (measured). So a text is matched
only if the worst case for its length is within the call's remaining budget.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from midwatch.orchestration.validation.automaton import Part, TooLarge
from midwatch.orchestration.validation.regex_safety import Reading, parse_pattern

MAX_JUDGED_POSITIONS = 12
"""Largest pattern that is analysed: three readers have 12^3 = 1,728 states. Larger ones get the worst case."""

_LOOPS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


@dataclass(frozen=True)
class PatternCost:
    """A compiled pattern, and the properties that decide its worst-case time."""

    expression: re.Pattern[str]
    anchored: bool
    """True if the pattern is tried only at the beginning of a text."""
    loops: tuple[int, ...]
    """The highest count of each repetition whose count is not fixed."""
    linear: bool
    """True if the loops can divide a text in only a bounded number of ways."""

    def steps(self, size_chars: int) -> int:
        """The most steps for a text of this length."""
        starts = 1 if self.anchored else size_chars + 1
        if self.linear:
            return starts * (size_chars + 1 if self.loops else 1)
        return starts * prod(min(high, size_chars) + 1 for high in self.loops)


@lru_cache(maxsize=4_096)
def pattern_cost(pattern: str) -> PatternCost:
    """Compute the cost of a pattern that `find_hazard` has accepted."""
    tree = parse_pattern(pattern)
    loops = tuple(_loops(tree))
    return PatternCost(re.compile(pattern), _is_anchored(tree), loops, not loops or _is_linear(tree))


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


def _is_anchored(tree: Any) -> bool:
    if tree.state.flags & re.MULTILINE or not len(tree):
        return False
    op, value = tree[0]
    if str(op) == "SUBPATTERN":
        return _is_anchored(value[3])
    if str(op) == "BRANCH":
        return all(_is_anchored(branch) for branch in value[1])
    return str(op) == "AT" and str(value) in ("AT_BEGINNING", "AT_BEGINNING_STRING")


def _is_linear(tree: Any) -> bool:
    if any(op in str(tree) for op in ("ASSERT", "GROUPREF")):
        return False  # the automaton does not model these
    try:
        reading = _WholeReading(tree)
        return not reading.automaton.is_polynomial(MAX_JUDGED_POSITIONS)
    except (TooLarge, RecursionError):
        return False


class _WholeReading(Reading):
    r"""A reading that includes the characters between the loops: `^\d+-\d+$` is linear because of its hyphen."""

    def _position(self, op: str, value: Any) -> Part:
        return self.automaton.position(frozenset(c for c in self.alphabet if self._fits(op, value, c)))
