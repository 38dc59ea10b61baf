"""Make a minimal valid example of a tool's arguments, for a model whose own arguments were refused."""

from __future__ import annotations

import json

from midwatch.orchestration.validation.subschemas import resolve_reference
from midwatch.orchestration.validation.validator import JSONSchemaValidator
from midwatch.schemas.contract import JsonObject

MAX_DEPTH = 6
WORDS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "name@example.com",
    "idn-email": "name@example.com",
    "hostname": "example.com",
    "idn-hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com",
    "iri": "https://example.com",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "json-pointer": "/name",
    "relative-json-pointer": "0",
}
"""Example values for the formats that the word `text` does not have."""


def make_example(validator: JSONSchemaValidator) -> str | None:
    """Fill in the required properties and return them as JSON. Returns None if the result is not valid."""
    try:
        value = _value(validator.schema, validator.schema, 0)
    except (KeyError, TypeError, RecursionError, ValueError):
        return None
    if not isinstance(value, dict) or validator.problems(value):
        return None
    return json.dumps(value, ensure_ascii=False)


def _value(schema: object, root: JsonObject, depth: int) -> object:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return {}
    if "$ref" in schema:
        return _value(resolve_reference(root, schema["$ref"]), root, depth + 1)
    for known in ("const", "default"):
        if known in schema:
            return schema[known]
    for many in ("enum", "examples"):
        if schema.get(many):
            return schema[many][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return _value({**{k: v for k, v in schema.items() if k != choice}, **schema[choice][0]}, root, depth + 1)
    kind = schema.get("type")
    return _of_type(kind[0] if isinstance(kind, list) else kind, schema, root, depth)


def _of_type(kind: object, schema: JsonObject, root: JsonObject, depth: int) -> object:
    match kind:
        case "object" | None if "properties" in schema or kind == "object":
            fields = schema.get("properties", {})
            return {name: _value(fields.get(name, {}), root, depth + 1) for name in schema.get("required", ())}
        case "array":
            return [_value(schema.get("items", {}), root, depth + 1) for _ in range(int(schema.get("minItems", 1)))]
        case "integer" | "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema))
            return least if isinstance(least, (int, float)) else 1
        case "boolean":
            return True
        case "null":
            return None
        case _:
            word = WORDS.get(str(schema.get("format")), "text")
            return word.ljust(int(schema.get("minLength", 0)), "x")[: int(schema.get("maxLength", 200))]
