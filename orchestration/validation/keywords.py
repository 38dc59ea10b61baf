"""The two supported drafts of JSON Schema, with replacements for keywords that the library checks slowly or wrongly.

- `uniqueItems`: the library compares every pair, and 5,000 objects took 100 seconds (measured). Here a hash table is used.
- `pattern` and the keywords of properties: see `property_keywords`.
- `multipleOf`: 19.99 is a multiple of 0.01, but not in binary floating point. Here the decimal numbers are compared exactly.

Every keyword pays for its work before it does it (see `cost`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from fractions import Fraction
from typing import Any, cast

from jsonschema import Draft7Validator, Draft202012Validator, ValidationError, validators
from jsonschema.protocols import Validator

from midwatch.orchestration.validation.cost import CHARS_PER_UNIT, ERROR_UNITS, EffortBudget
from midwatch.orchestration.validation.property_keywords import (
    additional_properties,
    pattern,
    pattern_properties,
    unevaluated_properties,
)

Keyword = Callable[[Validator, Any, Any, Any], Iterable[ValidationError] | None]

MAX_MESSAGE_CHARS = 1_000

LATEST = "https://json-schema.org/draft/2020-12/schema"


def _unique_items(_validator: Validator, wanted: bool, instance: object, _schema: object) -> Iterator[ValidationError]:
    if not wanted or not isinstance(instance, list):
        return
    seen: dict[Hashable, int] = {}
    for index, item in enumerate(instance):
        if seen.setdefault(identity(item), index) != index:
            yield ValidationError("the same item twice", path=[index], instance=item)
            return


def identity(value: Any) -> Hashable:
    """A key that is equal for equal JSON values: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return ("array", tuple(identity(item) for item in value))
    if isinstance(value, dict):
        return ("object", frozenset((key, identity(item)) for key, item in value.items()))
    if isinstance(value, int | float):
        # As text: 15,000 numbers with the same hash cost seconds, and are easy to find. Hashes of text are randomized.
        return ("number", str(int(value) if value == int(value) else value))
    return cast(Hashable, value)  # a string or null


def _multiple_of(_validator: Validator, unit: float, instance: object, _schema: object) -> Iterator[ValidationError]:
    number = None if isinstance(instance, bool) or not isinstance(instance, int | float) else _exact(instance)
    if number is not None and (number / _exact(unit)).denominator != 1:
        yield ValidationError("not a multiple")


def _exact(number: float) -> Fraction:
    return Fraction(str(number))


def _charge(keyword: str, check: Keyword) -> Keyword:
    """Wrap a keyword so that it pays before it validates, and for every error."""

    def check_and_pay(validator: Validator, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        effort = getattr(validator, "format_checker", None)
        if not isinstance(effort, EffortBudget):
            yield from check(validator, value, instance, schema) or ()
            return
        effort.pay(keyword, value, instance, schema)
        for error in check(validator, value, instance, schema) or ():
            effort.spend(ERROR_UNITS + len(error.message) // CHARS_PER_UNIT)
            error.message = error.message[:MAX_MESSAGE_CHARS]
            yield error

    return check_and_pay


_REPLACED: dict[str, Keyword] = {
    "uniqueItems": _unique_items,
    "multipleOf": _multiple_of,
    "pattern": pattern,
    "patternProperties": pattern_properties,
    "additionalProperties": additional_properties,
    "unevaluatedProperties": unevaluated_properties,
}


def _extend(draft: Any) -> type[Validator]:
    replaced = {name: check for name, check in _REPLACED.items() if name in draft.VALIDATORS}
    keywords = {**draft.VALIDATORS, **replaced}
    extend: Callable[..., type[Validator]] = validators.extend
    return extend(draft, {name: _charge(name, check) for name, check in keywords.items()})


DRAFTS: dict[str, type[Validator]] = {
    LATEST: _extend(Draft202012Validator),
    "http://json-schema.org/draft-07/schema": _extend(Draft7Validator),
}
"""Validator class by `$schema`, without a `#` at its end. A schema without `$schema` uses the latest."""
