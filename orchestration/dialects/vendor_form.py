"""The form in which a tool is offered to a provider that does not take it as it is written.

Used by the providers' adapters, and by `rules` to say beforehand what they will do. Strict mode binds the model to the
schema that it is sent, so nothing is rewritten there.
"""

from __future__ import annotations

from contextlib import suppress

from midwatch.orchestration.dialects.arrays import with_items
from midwatch.orchestration.dialects.root import COMPOSED, NotOneObject, RootForm, one_object
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.tools import ToolSpec

ROOT_REFUSED: dict[str, tuple[str, ...]] = {
    "anthropic": COMPOSED,
    "openai": (*COMPOSED, "not", "enum", "const"),
    "gemini": COMPOSED,
}
"""Keywords that a provider does not take at the top level. One that isn't named here is sent what the author wrote."""


STRICT_MODES = ("anthropic", "openai")
"""Providers whose strict mode is asked for; the others are never told of it."""


def to_vendor_tool(provider: str, tool: ToolSpec) -> ToolSpec:
    """The tool as this provider takes it: the same one, where that is what the author wrote."""
    if provider not in ROOT_REFUSED or (tool.strict and provider in STRICT_MODES):
        return tool
    form = to_vendor_schema(provider, tool.input_schema)
    if form.schema is tool.input_schema:
        return tool
    described = f"{tool.description.rstrip()}\n\n{form.said}" if form.said else tool.description
    return tool.model_copy(update={"description": described, "input_schema": form.schema})


def to_vendor_output(provider: str, schema: JsonObject) -> JsonObject:
    """The same for the schema of a final answer; the alternatives become part of its own description."""
    if provider not in ROOT_REFUSED:
        return schema
    form = to_vendor_schema(provider, schema)
    described = " ".join(filter(None, (form.schema.get("description"), form.said)))
    return {**form.schema, "description": described} if form.said else form.schema


def to_vendor_schema(provider: str, schema: JsonObject) -> RootForm:
    """The schema that is sent, and what it can't say. One that has no such form is left: `rules` refuses it."""
    form = RootForm(schema, "")
    if any(keyword in schema for keyword in ROOT_REFUSED[provider]):
        with suppress(NotOneObject):
            form = one_object(schema)
    written = with_items(form.schema, untyped=provider == "openai")
    if provider == "openai" and "properties" not in written:
        written = {**written, "properties": {}}
    return RootForm(written, form.said)
