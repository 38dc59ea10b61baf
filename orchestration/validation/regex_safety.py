"""Which regular expressions may stop a worker: those whose loops can pass over one text in more than one way.

A backtracking matcher that fails tries every way there is. If a loop can read the same text in two ways, n passes give
2^n of them: `^(a+)+$` needs 37 seconds on 29 characters (measured). That is exponential ambiguity, and it is decidable:
Weideman et al., "Analyzing Matching Time Behavior of Backtracking Regular Expression Matchers" (2016). So
`^[a-z]+(-[a-z]+)*$` is accepted, although its quantifiers are nested, and `(a|aa)*` is refused, although they are not.

Not judged here: polynomial time (`.*.*x` is cubic). The length of what is matched bounds it (see `patterncost`).
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from midwatch.orchestration.validation.automaton import Automaton, Part, TooLarge

_PARSER: Any = import_module("re._parser")
"""Private, but the only reading of a pattern that is sure to be the one `re` matches with. The same in 3.11 to 3.14."""

_AMBIGUOUS = "a repeated part can match one text in two ways, so refusing a text takes exponential time"
_TOO_LARGE = "it is too large to be judged"

_TYPICAL = "".join(map(chr, range(256))) + "Ωжſ٣中\u2003"
"""Characters of every class (letters, digits, spaces, none of them), in Latin-1 and beyond."""

_CATEGORIES = {
    "CATEGORY_DIGIT": re.compile(r"\d"),
    "CATEGORY_NOT_DIGIT": re.compile(r"\D"),
    "CATEGORY_SPACE": re.compile(r"\s"),
    "CATEGORY_NOT_SPACE": re.compile(r"\S"),
    "CATEGORY_WORD": re.compile(r"\w"),
    "CATEGORY_NOT_WORD": re.compile(r"\W"),
}


def parsed(pattern: str) -> Any:
    """The parser's tree of a pattern. Raises what the parser raises."""
    return _PARSER.parse(pattern)


def hazard(pattern: str) -> str | None:
    """Why this pattern can't be used, in words; None when it can.

    Takes milliseconds; a pattern too large to be judged is refused.
    """
    try:
        tree = parsed(pattern)
    except (re.error, OverflowError, FutureWarning) as error:
        return f"it is not a regular expression of Python: {error}"
    except RecursionError:
        return _TOO_LARGE
    try:
        return _AMBIGUOUS if Reading(tree).ambiguous() else None
    except (TooLarge, RecursionError):
        return _TOO_LARGE


class Reading:
    """Turns the loops of the parser's tree into an automaton. What is not repeated can't be ambiguous a second time."""

    def __init__(self, tree: Any) -> None:
        self.fold = bool(tree.state.flags & re.IGNORECASE)
        self.alphabet = frozenset(_TYPICAL).union(*([c, c.swapcase()[:1]] for c in _characters(tree)))
        self.automaton = Automaton()
        self.times = 1
        """How often what is being read may be repeated by all that is around it."""
        self._sequence(tree)

    def ambiguous(self) -> bool:
        """Can one of its loops read one text in two ways?"""
        return self.automaton.ambiguous()

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
        if op in ("ASSERT", "ASSERT_NOT"):  # takes no text, but its own loops count
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
    """Every character the pattern names, and its neighbours: wherever two ranges overlap, one of these lies in both."""
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
