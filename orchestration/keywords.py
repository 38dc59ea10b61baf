"""The two dialects of JSON Schema spoken here, and the keywords whose usual answer is too slow, too loose or wrong.

- `uniqueItems`: the library compares every pair; 5,000 objects took 100 seconds (measured). Here an item is looked up.
- `multipleOf`: 19.99 is a multiple of 0.01, which binary floating point denies. Here decimal text is compared exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from fractions import Fraction
from typing import Any, cast

from jsonschema import Draft7Validator, Draft202012Validator, ValidationError, validators
from jsonschema.protocols import Validator

LATEST = "https://json-schema.org/draft/2020-12/schema"


def _unique_items(_validator: Validator, wanted: bool, instance: object, _schema: object) -> Iterator[ValidationError]:
    if not wanted or not isinstance(instance, list):
        return
    seen: dict[Hashable, int] = {}
    for index, item in enumerate(instance):
        if seen.setdefault(_identity(item), index) != index:
            yield ValidationError("the same item twice", path=[index], instance=item)
            return


def _identity(value: Any) -> Hashable:
    """Equal exactly when the JSON values are: 1 and 1.0 are one number, 1 and true are not one value."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return ("array", tuple(_identity(item) for item in value))
    if isinstance(value, dict):
        return ("object", frozenset((key, _identity(item)) for key, item in value.items()))
    return cast(Hashable, value)  # a string, a number or null


def _multiple_of(_validator: Validator, unit: float, instance: object, _schema: object) -> Iterator[ValidationError]:
    number = None if isinstance(instance, bool) or not isinstance(instance, int | float) else _exact(instance)
    if number is not None and (number / _exact(unit)).denominator != 1:
        yield ValidationError("not a multiple")


def _exact(number: float) -> Fraction:
    return Fraction(str(number))


_extend: Callable[..., type[Validator]] = validators.extend
_OWN: Any = {"uniqueItems": _unique_items, "multipleOf": _multiple_of}

DIALECTS: dict[str, type[Validator]] = {
    LATEST: _extend(Draft202012Validator, _OWN),
    "http://json-schema.org/draft-07/schema": _extend(Draft7Validator, _OWN),
}
"""By `$schema`, without its empty fragment. A schema that names none speaks the latest."""
