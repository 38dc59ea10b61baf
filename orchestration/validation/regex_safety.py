"""Refuse regular expressions that take exponential time: those with a loop that can read one text in two ways.

A backtracking matcher tries every way before it fails. If a loop can read the same text in two ways, n rounds have 2^n ways:
`^(a+)+$` needs 37 seconds for 29 characters (measured). This exponential ambiguity can be decided: Weideman et al.,
"Analyzing Matching Time Behavior of Backtracking Regular Expression Matchers" (2016). So `^[a-z]+(-[a-z]+)*$` is accepted
although its quantifiers are nested, and `(a|aa)*` is refused although they are not.

Polynomial time (`.*.*x` is cubic) is not refused here. `pattern_cost` limits it by the length of the text.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from midwatch.orchestration.validation.automaton import Automaton, Part, TooLarge

_PARSER: Any = import_module("re._parser")
"""A private module, but the only parser that surely reads a pattern as `re` does. It is the same in Python 3.11 to 3.14."""

_AMBIGUOUS = "a repeated part can match one text in two ways, so refusing a text takes exponential time"
_TOO_LARGE = "it is too large to be analysed"

_TYPICAL = "".join(map(chr, range(256))) + "Ωжſ٣中\u2003"
"""Characters of every class (letters, digits, spaces, others), in Latin-1 and beyond."""

_CATEGORIES = {
    "CATEGORY_DIGIT": re.compile(r"\d"),
    "CATEGORY_NOT_DIGIT": re.compile(r"\D"),
    "CATEGORY_SPACE": re.compile(r"\s"),
    "CATEGORY_NOT_SPACE": re.compile(r"\S"),
    "CATEGORY_WORD": re.compile(r"\w"),
    "CATEGORY_NOT_WORD": re.compile(r"\W"),
}


def parse_pattern(pattern: str) -> Any:
    """Parse a pattern. Raises the parser's own exceptions."""
    return _PARSER.parse(pattern)


def find_hazard(pattern: str) -> str | None:
    """Why this pattern can't be used, as text, or None if it can.

    Takes milliseconds. A pattern that is too large to be analysed is refused.
    """
    try:
        tree = parse_pattern(pattern)
    except (re.error, OverflowError, FutureWarning) as error:
        return f"it is not a regular expression of Python: {error}"
    except RecursionError:
        return _TOO_LARGE
    try:
        return _AMBIGUOUS if Reading(tree).is_ambiguous() else None
    except (TooLarge, RecursionError):
        return _TOO_LARGE


class Reading:
    """Builds the automaton of a pattern's loops from the parser's tree. Parts outside of loops are left out."""

    def __init__(self, tree: Any) -> None:
        self.fold = bool(tree.state.flags & re.IGNORECASE)
        self.alphabet = frozenset(_TYPICAL).union(*([c, c.swapcase()[:1]] for c in _characters(tree)))
        self.automaton = Automaton()
        self.times = 1
        """The product of the counts of all loops around the current part."""
        self._sequence(tree)

    def is_ambiguous(self) -> bool:
        """Can one of the loops read one text in two ways?"""
        return self.automaton.is_ambiguous()

    def _sequence(self, items: Any) -> Part:
        part = self.automaton.nothing
        for op, value in items:
            part = self.automaton.then(part, self._item(str(op), value))
        return part

    def _item(self, op: str, value: Any) -> Part:
        if op in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self._position(op, value)
        if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            return self._repeat(*value)
        if op == "SUBPATTERN":
            self.fold = self.fold or bool(value[1] & re.IGNORECASE)
            return self._sequence(value[3])
        if op == "ATOMIC_GROUP":
            return self._sequence(value)
        if op == "BRANCH":
            return self.automaton.either([self._sequence(branch) for branch in value[1]])
        if op == "GROUPREF_EXISTS":
            return self.automaton.either([self._sequence(branch or ()) for branch in value[1:]])
        if op == "GROUPREF":
            return self._position("ANY", None)
        if op in ("ASSERT", "ASSERT_NOT"):  # an assertion consumes no text, but its loops count
            self._sequence(value[1])
        return self.automaton.nothing

    def _repeat(self, low: int, high: int, body: Any) -> Part:
        around, self.times = self.times, self.times * max(1, int(high))
        part = self.automaton.repeat(low, int(high), self.times, body.getwidth(), lambda: self._sequence(body))
        self.times = around
        return part

    def _position(self, op: str, value: Any) -> Part:
        if self.times == 1:
            return self.automaton.nothing
        return self.automaton.position(frozenset(c for c in self.alphabet if self._fits(op, value, c)))

    def _fits(self, op: str, value: Any, character: str) -> bool:
        if self.fold and character != character.swapcase() and len(character.swapcase()) == 1:
            return self._is(op, value, character) or self._is(op, value, character.swapcase())
        return self._is(op, value, character)

    def _is(self, op: str, value: Any, character: str) -> bool:
        if op == "ANY":
            return True
        if op == "LITERAL":
            return bool(ord(character) == value)
        if op == "NOT_LITERAL":
            return bool(ord(character) != value)
        if op == "RANGE":
            return bool(value[0] <= ord(character) <= value[1])
        if op == "CATEGORY":
            return _CATEGORIES[str(value)].match(character) is not None
        negated = str(value[0][0]) == "NEGATE"
        return negated != any(self._is(str(inner), argument, character) for inner, argument in value[negated:])


def _characters(tree: Any) -> set[str]:
    """Every character in the pattern, with its two neighbours. If two ranges overlap, one of these lies in both."""
    found: set[str] = set()
    todo: list[Any] = [tree]
    while todo:
        one = todo.pop()
        if type(one) is int and 0 < one < 0x10FFFF:
            found.update(chr(one + step) for step in (-1, 0, 1))
        elif isinstance(one, (list, tuple)):
            todo.extend(one)
        elif hasattr(one, "data"):
            todo.extend(one.data)
    return found
