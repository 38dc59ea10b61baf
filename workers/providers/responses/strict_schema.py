"""Checks whether OpenAI's strict mode accepts a JSON Schema."""

from __future__ import annotations

from midwatch.orchestration.dialects.answer import fits_strict_mode
from midwatch.schemas.contract import JsonObject


def is_openai_strict(schema: JsonObject) -> bool:
    """Return True if strict mode accepts the schema as written. OpenAI answers 400 to any other schema in strict mode."""
    return fits_strict_mode("openai", schema)
