"""Makes a value that satisfies a JSON Schema, for valid tool calls without a real model."""

from __future__ import annotations

import math
from typing import Any

from midwatch.schemas.contract import JsonObject

DEEPEST = 12
"""Depth at which a recursive schema is cut. Real arguments nest less deep."""

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
"""One valid value for each format that tools use. Other formats are treated as plain text."""


def make_example(schema: JsonObject | bool) -> Any:
    """Make a small value for a schema: required properties only, and the first choice of each enum and union.

    The same schema always gives the same value. The keywords `pattern`, `not` and `if` are ignored, so a schema that
    uses them may get an invalid value.
    """
    return _make_value(schema, schema if isinstance(schema, dict) else {}, 0)


def _make_value(schema: object, root: JsonObject, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > DEEPEST:
        return "text" if schema is True else None
    if "$ref" in schema:
        return _make_value(_resolve(str(schema["$ref"]), root), root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    if isinstance(schema.get("allOf"), list):
        return _make_value(_merge_all_of(schema, root), root, depth + 1)
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            rest = {name: value for name, value in schema.items() if name != key}
            return _make_value({**rest, **_choose_first(schema[key], root)}, root, depth + 1)
    return _make_typed(schema, root, depth)


def _make_typed(schema: JsonObject, root: JsonObject, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if kind == "object":
        properties = schema.get("properties", {})
        names = schema.get("required", [])
        return {name: _make_value(properties.get(name, {}), root, depth + 1) for name in names}
    if kind == "array":
        item = _make_value(schema.get("items", True), root, depth + 1)
        return [item] * schema.get("minItems", 0)
    if kind in ("integer", "number"):
        return _make_number(schema, kind)
    if kind == "boolean":
        return True
    return None if kind == "null" else _make_text(schema)


def _make_number(schema: JsonObject, kind: str) -> float:
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


def _make_text(schema: JsonObject) -> str:
    text = FORMATS.get(schema.get("format", ""), "text")
    if len(text) < schema.get("minLength", 0):
        text += "x" * (schema["minLength"] - len(text))
    return text[: schema["maxLength"]] if "maxLength" in schema else text


def _choose_first(choices: list[Any], root: JsonObject) -> JsonObject:
    """Return the first choice that is not null."""
    resolved = [_resolve(choice["$ref"], root) if "$ref" in choice else choice for choice in choices]
    return next((choice for choice in resolved if choice.get("type") != "null"), resolved[0])


def _merge_all_of(schema: JsonObject, root: JsonObject) -> JsonObject:
    """Merge `allOf` into the schema. This handles the single entry that schema generators write, and disjoint objects."""
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
    """Resolve a reference inside the same document. Any other reference gives an empty schema and is never fetched."""
    node: Any = root
    for name in reference.removeprefix("#/").split("/") if reference.startswith("#/") else [""]:
        node = node.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}
