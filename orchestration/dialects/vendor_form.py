"""Rewrite a tool's schema for a provider that does not accept it as written.

The providers' adapters use this, and `rules` uses it to predict what they will send. In strict mode the model is bound to the
schema that is sent, so nothing is rewritten then.
"""

from __future__ import annotations

from contextlib import suppress

from midwatch.orchestration.dialects.arrays import add_items
from midwatch.orchestration.dialects.root import COMPOSED, NotOneObject, RootForm, to_one_object
from midwatch.orchestration.dialects.values import fit_values
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.tools import ToolSpec

ROOT_REFUSED: dict[str, tuple[str, ...]] = {
    "anthropic": COMPOSED,
    "openai": (*COMPOSED, "not", "enum", "const"),
    "gemini": COMPOSED,
}
"""Keywords that a provider does not accept at the top level. Other providers get the author's schema."""


STRICT_MODES = ("anthropic", "openai")
"""Providers whose strict mode is used. The others never get the `strict` flag."""


def to_vendor_tool(provider: str, tool: ToolSpec) -> ToolSpec:
    """The tool in the form that this provider accepts. It is the same object if nothing has to change."""
    if provider not in ROOT_REFUSED or (tool.strict and provider in STRICT_MODES):
        return tool
    form = to_vendor_schema(provider, tool.input_schema)
    if form.schema is tool.input_schema:
        return tool
    described = f"{tool.description.rstrip()}\n\n{form.note}" if form.note else tool.description
    return tool.model_copy(update={"description": described, "input_schema": form.schema})


def to_vendor_output(provider: str, schema: JsonObject) -> JsonObject:
    """The schema of a final answer in the form that this provider accepts. Alternatives are added to its description."""
    if provider not in ROOT_REFUSED:
        return schema
    form = to_vendor_schema(provider, schema)
    described = " ".join(filter(None, (form.schema.get("description"), form.note)))
    return {**form.schema, "description": described} if form.note else form.schema


def to_vendor_schema(provider: str, schema: JsonObject) -> RootForm:
    """The schema that is sent, and a note on what it can't express. A schema that can't be rewritten is left as it is."""
    form = RootForm(schema, "")
    if any(keyword in schema for keyword in ROOT_REFUSED[provider]):
        with suppress(NotOneObject):
            form = to_one_object(schema)
    written = fit_values(add_items(form.schema, untyped=provider == "openai"))
    if provider == "openai" and "properties" not in written:
        written = {**written, "properties": {}}
    return RootForm(written, form.note)
