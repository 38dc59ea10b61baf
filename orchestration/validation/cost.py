"""Limit the cost of validating one call. The cost is counted, not timed, so that every machine gives the same result.

The library has no limits itself: an array of 300,000 numbers takes it seconds, one of 300,000 empty objects against 3,000
properties takes 23 seconds (measured). So every keyword pays before it validates, by the size of its input. A call that
exceeds its budget is refused. One unit is about three microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonschema import FormatChecker

from midwatch.orchestration.validation.effort import MAX_EFFORT, EffortExceeded
from midwatch.orchestration.validation.formats import FORMATS
from midwatch.orchestration.validation.patterns import compile_pattern

Price = Callable[[Any, Any, Any], int]
"""(the keyword's value, the validated value, the schema with the keyword) -> units."""


class EffortBudget(FormatChecker):
    """The remaining budget of one call. It is passed as the format checker, the only object that every keyword gets."""

    def __init__(self) -> None:
        super().__init__(())
        self.checkers = FORMATS.checkers
        self.left = MAX_EFFORT

    def spend(self, units: int) -> None:
        """Take units from the budget. Raises EffortExceeded."""
        self.left -= units
        if self.left < 0:
            raise EffortExceeded

    def pay(self, keyword: str, value: Any, instance: Any, schema: Any) -> None:
        """Pay for one keyword. Raises EffortExceeded."""
        price = PRICES.get(keyword)
        self.spend(1 if price is None else 1 + price(value, instance, schema))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (list, dict, str)) else 0


def _size(value: Any) -> int:
    """Count the values inside a value."""
    count, todo = 0, [value]
    while todo:
        one = todo.pop()
        count += 1
        if isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
    return count


def _by_children(_value: Any, instance: Any, _schema: Any) -> int:
    return _length(instance) * 3 // 4 if isinstance(instance, (list, dict)) else 0


def _by_list_length(value: Any, _instance: Any, _schema: Any) -> int:
    return _length(value) // 32


def _by_compared_size(value: Any, instance: Any, _schema: Any) -> int:
    several = _length(value) if isinstance(value, list) else 1
    return several // 8 + ((_size(value) + _size(instance)) // 8 if isinstance(instance, (list, dict)) else 0)


def _by_pattern(value: Any, instance: Any, _schema: Any) -> int:
    return compile_pattern(value).price(len(instance)) if isinstance(instance, str) else 0


def _by_names_and_patterns(value: Any, instance: Any, _schema: Any) -> int:
    if not isinstance(instance, dict) or not value or not instance:
        return 0
    pairs = len(value) * len(instance)
    if pairs > MAX_EFFORT:
        return pairs
    longest = max(map(len, instance))
    slowest = max(compile_pattern(pattern).price(longest) for pattern in value)
    return pairs // 4 + pairs * slowest


def _by_other_properties(_value: Any, instance: Any, schema: Any) -> int:
    if not isinstance(instance, dict):
        return 0
    return len(instance) // 2 + _by_names_and_patterns(schema.get("patternProperties"), instance, schema)


def _by_schema_size(_value: Any, instance: Any, schema: Any) -> int:
    return 10 + (_length(instance) + 1) * _size(schema) // 16 if isinstance(instance, (list, dict)) else 0


def _by_text_length(value: Any, instance: Any, _schema: Any) -> int:
    return _length(instance) // (4 if value == "regex" else 100)


def _by_item_size(_value: Any, instance: Any, _schema: Any) -> int:
    return _size(instance) // 2 if isinstance(instance, list) else 0


PRICES: dict[str, Price] = {
    "additionalItems": _by_children,
    "additionalProperties": _by_other_properties,
    "allOf": _by_list_length,
    "anyOf": _by_list_length,
    "const": _by_compared_size,
    "contains": _by_children,
    "dependencies": lambda value, _instance, _schema: _size(value) // 32,
    "dependentRequired": lambda value, _instance, _schema: _size(value) // 32,
    "dependentSchemas": _by_list_length,
    "enum": _by_compared_size,
    "format": _by_text_length,
    "items": _by_children,
    "multipleOf": lambda _value, _instance, _schema: 3,
    "oneOf": _by_list_length,
    "pattern": _by_pattern,
    "patternProperties": _by_names_and_patterns,
    "prefixItems": _by_children,
    "properties": _by_list_length,
    "propertyNames": _by_children,
    "required": _by_list_length,
    "unevaluatedItems": _by_schema_size,
    "unevaluatedProperties": _by_schema_size,
    "uniqueItems": _by_item_size,
    "$ref": lambda _value, _instance, _schema: 3,
    "$dynamicRef": lambda _value, _instance, _schema: 3,
}
"""Price of each keyword, in addition to the one unit that every keyword costs. Items and branches pay separately."""

ERROR_UNITS = 2
"""Price of an error, also of one that an `anyOf` drops again."""

CHARS_PER_UNIT = 250
"""Price of an error message. The library writes the value into each: 200 branches that refuse 1 MB make 200 MB."""
