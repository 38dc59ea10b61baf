"""Fit the values in a schema to what vendors can read: choices, bounds, defaults.

The rewritten schema allows the same calls, and its description says what it can't express. Choices that the type excludes can
never be valid, so they are not sent. A whole number beyond 64 bits makes Anthropic's server answer 400 ("int too big to
convert"), and others read it as another number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy

from midwatch.orchestration.validation.keywords import identity
from midwatch.orchestration.validation.subschemas import every_part, types
from midwatch.schemas.contract import JsonObject, canonical_json

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1

_NUMBERS = frozenset({"number", "integer"})
TYPES_OF_KEYWORD: dict[str, frozenset[str]] = {
    **dict.fromkeys(("minLength", "maxLength", "pattern", "contentEncoding"), frozenset({"string"})),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _NUMBERS),
    **dict.fromkeys(
        ("items", "prefixItems", "additionalItems", "contains", "minContains", "maxContains", "minItems", "maxItems",
         "uniqueItems", "unevaluatedItems"), frozenset({"array"})),
    **dict.fromkeys(
        ("properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
         "maxProperties", "unevaluatedProperties", "dependentRequired", "dependentSchemas"), frozenset({"object"})),
}  # fmt: skip
"""Keyword -> the types that it restricts. It has no effect on values of other types."""

_VALUES = frozenset({
    "enum", "const", "default", "examples", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains", "minProperties", "maxProperties",
})  # fmt: skip
"""Keywords that hold values, not schemas."""


def fits_type(keyword: str, kinds: Sequence[object]) -> bool:
    """May a schema of these types have this keyword? `kinds` is `[None]` if it has no type."""
    allowed = TYPES_OF_KEYWORD.get(keyword)
    return allowed is None or None in kinds or bool(allowed & set(kinds))


def type_of(value: object) -> str:
    """The JSON type of a value. A whole number is an `integer`, also if it is written `2.0`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "integer" if value == int(value) else "number"
    return "string" if isinstance(value, str) else "object" if isinstance(value, dict) else "array"


def is_of_type(value: object, kinds: Sequence[object]) -> bool:
    """Is the value of one of these types?"""
    kind = type_of(value)
    return None in kinds or kind in kinds or (kind == "integer" and "number" in kinds)


def has_large_number(value: object) -> bool:
    """Does the value hold a whole number that 64 bits can't hold?"""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, int):
            if not MIN_INTEGER <= one <= MAX_INTEGER:
                return True
        elif isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
    return False


def large_numbers(part: JsonObject) -> Iterator[str]:
    """The keywords of a schema whose values hold such a number."""
    yield from (word for word in part if word in _VALUES and has_large_number(part[word]))


def fit_choices(part: JsonObject) -> list[object]:
    """The choices that are of the schema's type, each once. All of them if none is."""
    kinds, chosen = types(part), {identity(one): one for one in part["enum"]}
    return [one for one in chosen.values() if is_of_type(one, kinds)] or list(chosen.values())


def has_odd_choices(part: JsonObject) -> bool:
    """Does its `enum` name a choice twice, or one that its type excludes?"""
    return isinstance(part.get("enum"), list) and len(fit_choices(part)) < len(part["enum"])


def list_choices(values: Sequence[object]) -> str:
    """Choices as text for a description, in JSON's spelling."""
    return "One of: " + ", ".join(json.dumps(value, ensure_ascii=False) for value in values)


def fit_values(schema: JsonObject) -> JsonObject:
    """Rewrite a schema so that every vendor can read its values. Returns the same object if nothing has to change."""
    if not _may_need_change(schema):
        return schema
    written = deepcopy(schema)
    for _, part in every_part(written):
        if has_odd_choices(part):
            part["enum"] = fit_choices(part)
        unread = {word: part.pop(word) for word in list(large_numbers(part))}
        values = unread.pop("enum", [unread.pop("const")] if "const" in unread else [])
        notes = [list_choices(values)] if values else []
        notes += [f"({canonical_json(unread)[1:-1]})"] if unread else []
        if notes:
            part["description"] = " ".join(filter(None, (part.get("description"), *notes)))
    return written


def _may_need_change(schema: JsonObject) -> bool:
    """Could the schema need a change? This runs before every call for every tool, so it is a quick test of all values."""
    todo: list[object] = [schema]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            if isinstance(one.get("enum"), list) and has_odd_choices(one):
                return True
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
        elif isinstance(one, int) and not MIN_INTEGER <= one <= MAX_INTEGER:
            return True
    return False
