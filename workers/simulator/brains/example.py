"""A value that satisfies a JSON Schema: how a model that thinks nothing still makes a valid tool call."""

from __future__ import annotations

import math
from typing import Any

from midwatch.schemas.contract import JsonObject

DEEPEST = 12
"""Where a recursive schema is cut off; real arguments stay under this depth."""

FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "person@example.com",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}
"""One valid value for each format that tools use; others are treated as plain text."""


def example(schema: JsonObject | bool) -> Any:
    """The same small value for the same schema: required properties only, first choice of every enum and union.

    Deals with what tool schemas use. A `pattern`, `not` or `if` is not solved: the value may then be invalid.
    """
    return _value(schema, schema if isinstance(schema, dict) else {}, 0)


def _value(schema: object, root: JsonObject, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > DEEPEST:
        return "text" if schema is True else None
    if "$ref" in schema:
        return _value(_resolve(str(schema["$ref"]), root), root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    if isinstance(schema.get("allOf"), list):
        return _value(_merged(schema, root), root, depth + 1)
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            rest = {name: value for name, value in schema.items() if name != key}
            return _value({**rest, **_first(schema[key], root)}, root, depth + 1)
    return _typed(schema, root, depth)


def _typed(schema: JsonObject, root: JsonObject, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if kind == "object":
        properties = schema.get("properties", {})
        names = schema.get("required", [])
        return {name: _value(properties.get(name, {}), root, depth + 1) for name in names}
    if kind == "array":
        item = _value(schema.get("items", True), root, depth + 1)
        return [item] * schema.get("minItems", 0)
    if kind in ("integer", "number"):
        return _number(schema, kind)
    if kind == "boolean":
        return True
    return None if kind == "null" else _text(schema)


def _number(schema: JsonObject, kind: str) -> float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    step: float = schema.get("multipleOf", 1)
    number: float = low if low is not None else min(0, high if high is not None else 0)
    if number == schema.get("exclusiveMinimum"):
        number += step
    elif number == schema.get("exclusiveMaximum"):
        number -= step
    if "multipleOf" in schema:
        number = math.ceil(number / step) * step
    return math.ceil(number) if kind == "integer" else number


def _text(schema: JsonObject) -> str:
    text = FORMATS.get(schema.get("format", ""), "text")
    if len(text) < schema.get("minLength", 0):
        text += "x" * (schema["minLength"] - len(text))
    return text[: schema["maxLength"]] if "maxLength" in schema else text


def _first(choices: list[Any], root: JsonObject) -> JsonObject:
    """The first choice that is not just null."""
    resolved = [_resolve(choice["$ref"], root) if "$ref" in choice else choice for choice in choices]
    return next((choice for choice in resolved if choice.get("type") != "null"), resolved[0])


def _merged(schema: JsonObject, root: JsonObject) -> JsonObject:
    """`allOf` flattened: enough for the single-entry form that schema generators write, and for disjoint objects."""
    merged = {name: value for name, value in schema.items() if name != "allOf"}
    for part in schema["allOf"]:
        part = _resolve(part["$ref"], root) if "$ref" in part else part
        merged = {
            **merged,
            **part,
            "properties": {**merged.get("properties", {}), **part.get("properties", {})},
            "required": [*merged.get("required", []), *part.get("required", [])],
        }
    if not merged["properties"]:
        del merged["properties"], merged["required"]
    return merged


def _resolve(reference: str, root: JsonObject) -> JsonObject:
    """A reference inside the same document; anything else is an empty schema, never a fetch."""
    node: Any = root
    for name in reference.removeprefix("#/").split("/") if reference.startswith("#/") else [""]:
        node = node.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}
