"""The schema of the final answer in the form that a provider enforces while the model writes.

OpenAI takes any schema without strict mode, and a subset of JSON Schema with it. Anthropic always enforces the schema, so it
always gets a form of its subset.
"""

from __future__ import annotations

from dataclasses import dataclass

from midwatch.orchestration.dialects.finders import not_required, open_objects
from midwatch.orchestration.dialects.limits import fits_strict_limits
from midwatch.orchestration.dialects.rule import REFUSED
from midwatch.orchestration.dialects.strict import lenient_form, strict_form
from midwatch.orchestration.dialects.tables import STRICT
from midwatch.orchestration.validation.subschemas import every_part, types
from midwatch.schemas.contract import JsonObject


@dataclass(frozen=True)
class AnswerForm:
    """The schema that is sent for an answer."""

    schema: JsonObject
    strict: bool
    """True if the provider enforces it."""
    lost: str = ""
    """Values that the author's schema allows and the answer can't contain."""
    refused: str = ""
    """Why no form of the schema can be sent. In this case `schema` is the author's schema."""


def answer_form(provider: str, schema: JsonObject) -> AnswerForm:
    """Write the schema of an answer for this provider. `schema` is already in the form of `to_vendor_output`."""
    if provider == "anthropic":
        return _for_anthropic(schema)
    if provider == "openai" and not fits_strict_mode(provider, schema) and _is_closed(schema):
        form = strict_form(provider, schema)
        return AnswerForm(schema, strict=False) if form is None else AnswerForm(form, strict=True)
    return AnswerForm(schema, strict=fits_strict_mode("openai", schema))


def fits_strict_mode(provider: str, schema: JsonObject) -> bool:
    """Does this provider's strict mode take the schema as written?"""
    parts = list(every_part(schema))
    rules = [rule for rule in STRICT[provider] if rule.effect == REFUSED]
    return not any(any(rule.finds(parts)) for rule in rules) and fits_strict_limits(provider, (), schema)


def _is_closed(schema: JsonObject) -> bool:
    """Is each object closed, with all properties required? Then the author wants strict mode."""
    parts = list(every_part(schema))
    return not any(open_objects(parts)) and not any(not_required(parts))


def _for_anthropic(schema: JsonObject) -> AnswerForm:
    form = strict_form("anthropic", schema)
    if form is not None:
        return AnswerForm(form, strict=True)
    form = lenient_form("anthropic", schema)
    if form is None:
        refused = "each part needs a type, `anyOf` or choices, and no definition may contain itself"
        return AnswerForm(schema, strict=True, refused=refused)
    lost = "an object without named properties can only be empty in an answer; name its properties"
    return AnswerForm(form, strict=True, lost=lost if any(map(_is_free_form, _parts(schema))) else "")


def _parts(schema: JsonObject) -> list[JsonObject]:
    return [part for _, part in every_part(schema)]


def _is_free_form(part: JsonObject) -> bool:
    return "object" in types(part) and not part.get("properties") and part.get("additionalProperties") is not False
