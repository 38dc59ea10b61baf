"""Whether a JSON Schema is in the form that OpenAI's strict mode demands."""

from __future__ import annotations

_VALUES = frozenset({"enum", "const", "default", "examples"})
"""Keywords that hold values, not schemas."""


def is_openai_strict(schema: object) -> bool:
    """True for closed objects with all properties required, all the way down: strict mode answers 400 to any other."""
    if isinstance(schema, list):
        return all(is_openai_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if "properties" in schema or schema.get("type") == "object":
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if schema.get("additionalProperties") is not False or set(properties) != set(required):
            return False
    return all(is_openai_strict(value) for key, value in schema.items() if key not in _VALUES)
