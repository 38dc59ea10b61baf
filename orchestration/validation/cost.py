"""What judging one call may cost: counted, not timed, so that the same call is judged alike on every machine.

Nothing in a schema or in arguments stops the library by itself: an array of 300,000 numbers takes it seconds, one of
300,000 empty objects against 3,000 properties 23 (measured). So every keyword pays before it judges, by the size of
what it is going to look at, and a call that can't pay is refused. One unit is about three microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonschema import FormatChecker

from midwatch.orchestration.validation.formats import FORMATS
from midwatch.orchestration.validation.pattern_cost import pattern_cost

MAX_EFFORT = 25_000
"""About 80 milliseconds. The dearest of 1,000 recorded calls costs 49 units."""

STEPS_PER_UNIT = 400
"""Steps of a regular expression: about 8 nanoseconds each."""

Price = Callable[[Any, Any, Any], int]
"""(the keyword's value, what is judged, the schema around it) -> units."""


class TooMuchEffort(Exception):
    """Raised when a call has spent what it may."""


class Effort(FormatChecker):
    """What one call has left. It travels as the format checker: the one thing the library hands to every keyword."""

    def __init__(self) -> None:
        super().__init__(())
        self.checkers = FORMATS.checkers
        self.left = MAX_EFFORT

    def spend(self, units: int) -> None:
        """Pay. Raises TooMuchEffort."""
        self.left -= units
        if self.left < 0:
            raise TooMuchEffort

    def ask(self, keyword: str, value: Any, instance: Any, schema: Any) -> None:
        """Pay for judging by one keyword. Raises TooMuchEffort."""
        price = PRICES.get(keyword)
        self.spend(1 if price is None else 1 + price(value, instance, schema))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (list, dict, str)) else 0


def _size(value: Any) -> int:
    """How many values there are inside."""
    count, todo = 0, [value]
    while todo:
        one = todo.pop()
        count += 1
        if isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
    return count


def _children(_value: Any, instance: Any, _schema: Any) -> int:
    return _length(instance) * 3 // 4 if isinstance(instance, (list, dict)) else 0


def _listed(value: Any, _instance: Any, _schema: Any) -> int:
    return _length(value) // 32


def _compared(value: Any, instance: Any, _schema: Any) -> int:
    several = _length(value) if isinstance(value, list) else 1
    return several // 8 + ((_size(value) + _size(instance)) // 8 if isinstance(instance, (list, dict)) else 0)


def _matched(value: Any, instance: Any, _schema: Any) -> int:
    return pattern_cost(value).steps(len(instance)) // STEPS_PER_UNIT if isinstance(instance, str) else 0


def _names_matched(value: Any, instance: Any, _schema: Any) -> int:
    if not isinstance(instance, dict) or not value or not instance:
        return 0
    pairs = len(value) * len(instance)
    if pairs > MAX_EFFORT:
        return pairs
    longest = max(map(len, instance))
    dearest = max(pattern_cost(pattern).steps(longest) for pattern in value)
    return pairs // 4 + pairs * dearest // STEPS_PER_UNIT


def _others(_value: Any, instance: Any, schema: Any) -> int:
    if not isinstance(instance, dict):
        return 0
    return len(instance) // 2 + _names_matched(schema.get("patternProperties"), instance, schema)


def _unevaluated(_value: Any, instance: Any, schema: Any) -> int:
    return 10 + (_length(instance) + 1) * _size(schema) // 16 if isinstance(instance, (list, dict)) else 0


def _formatted(value: Any, instance: Any, _schema: Any) -> int:
    return _length(instance) if value == "regex" else _length(instance) // 1_000


def _hashed(_value: Any, instance: Any, _schema: Any) -> int:
    return _size(instance) // 2 if isinstance(instance, list) else 0


PRICES: dict[str, Price] = {
    "additionalItems": _children,
    "additionalProperties": _others,
    "allOf": _listed,
    "anyOf": _listed,
    "const": _compared,
    "contains": _children,
    "dependencies": lambda value, _instance, _schema: _size(value) // 32,
    "dependentRequired": lambda value, _instance, _schema: _size(value) // 32,
    "dependentSchemas": _listed,
    "enum": _compared,
    "format": _formatted,
    "items": _children,
    "multipleOf": lambda _value, _instance, _schema: 3,
    "oneOf": _listed,
    "pattern": _matched,
    "patternProperties": _names_matched,
    "prefixItems": _children,
    "properties": _listed,
    "propertyNames": _children,
    "required": _listed,
    "unevaluatedItems": _unevaluated,
    "unevaluatedProperties": _unevaluated,
    "uniqueItems": _hashed,
    "$ref": lambda _value, _instance, _schema: 3,
    "$dynamicRef": lambda _value, _instance, _schema: 3,
}
"""Beside the one unit that every keyword costs. What is inside (items, branches) pays for itself."""

ERROR_UNITS = 2
"""Making an error, also one that an `anyOf` drops again."""

CHARS_PER_UNIT = 250
"""The library writes what was wrong into every message: 200 branches that refuse a megabyte are 200 megabytes."""
