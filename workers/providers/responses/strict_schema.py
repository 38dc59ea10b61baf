"""Checks whether OpenAI's strict mode accepts a JSON Schema."""

from __future__ import annotations

_VALUES = frozenset({"enum", "const", "default", "examples"})
"""Keywords that hold values, not schemas."""


def is_openai_strict(schema: object) -> bool:
    """Return True if every object in the schema is closed and requires all of its properties.

    In strict mode, OpenAI answers 400 to any other schema.
    """
    if isinstance(schema, list):
        return all(is_openai_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if "properties" in schema or schema.get("type") == "object":
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if schema.get("additionalProperties") is not False or set(properties) != set(required):
            return False
    return all(is_openai_strict(value) for key, value in schema.items() if key not in _VALUES)
