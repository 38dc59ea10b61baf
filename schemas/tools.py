"""ToolSpec: the description of a tool that a provider gets."""

from __future__ import annotations

from midwatch.schemas.contract import Contract, JsonObject, Name


class ToolSpec(Contract):
    """Name, description and input schema (JSON Schema, 2020-12) of one tool."""

    name: Name
    description: str
    input_schema: JsonObject
    strict: bool = False
    """Ask the provider for constrained decoding. Arguments are validated here in any case."""
