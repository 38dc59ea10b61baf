"""The strict form of a schema, with which a provider constrains a model's decoding.

The ladder sends it to a model that repeats invalid calls. In the strict form objects are closed, and constraints that the
provider does not support are moved to the description. The form allows no value of a kind that the author's schema does not
allow, and the arguments are still validated against that schema. A schema with a free-form object, or with an optional value that
can't be null, has no strict form.

Sources: OpenAI's guide to structured outputs and Anthropic's to strict tools, as both vendors' SDKs apply them
(`openai.lib._pydantic`, `anthropic.lib._parse._transform`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from midwatch.orchestration.dialects.finders import STRICT_FORMATS
from midwatch.orchestration.dialects.limits import fits_strict_limits
from midwatch.orchestration.dialects.values import fit_values, fits_type
from midwatch.orchestration.validation.subschemas import types
from midwatch.schemas.contract import JsonObject, canonical_json
from midwatch.schemas.tools import ToolSpec


@dataclass(frozen=True)
class _StrictMode:
    keeps: frozenset[str]
    """Keywords that constrain decoding. Others are moved to the description."""
    formats: frozenset[str]
    optional: bool
    """True if properties may be optional. Otherwise each must be given, if only as null."""
    recursive: bool
    lenient: bool = False
    """True if the form allows fewer or more values than the schema, and a description says the rest."""


_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})

MODES = {
    "openai": _StrictMode(
        _NUMBERS | {"pattern", "minItems", "maxItems"}, STRICT_FORMATS["openai"], optional=False, recursive=True
    ),
    "anthropic": _StrictMode(frozenset(), STRICT_FORMATS["anthropic"], optional=True, recursive=False),
}
"""Strict modes by provider. The strict mode of other providers is never used."""

MAX_DEPTH = 10
"""OpenAI's limit on nesting. Anthropic's grammars are less deep."""

_TEXTS = frozenset({"description", "title"})
_LEFT_OUT = frozenset({"examples", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly"})
_SPREAD = frozenset({"allOf", "patternProperties", "$dynamicRef", "prefixItems", "unevaluatedProperties"})
"""A schema with these has no strict form: removing them, or closing their object, would change which values are allowed."""


class _NoForm(Exception):
    """Raised inside this module when a schema has no strict form."""


def strict_form(provider: str, schema: JsonObject) -> JsonObject | None:
    """The schema's strict form for this provider. None if the schema has no such form, or the provider no strict mode."""
    mode = MODES.get(provider)
    if mode is None or schema.get("type") != "object":
        return None
    form = _write(schema, mode)
    if form is None or not fits_strict_limits(provider, (_probe(form),)):
        return None
    return form


def lenient_form(provider: str, schema: JsonObject) -> JsonObject | None:
    """The nearest form for an answer whose schema has no strict form. It may allow fewer values. None if there is none."""
    return _write(schema, replace(MODES[provider], lenient=True))


def to_strict_tools(provider: str, specs: Sequence[ToolSpec], wanted: Collection[str]) -> tuple[ToolSpec, ...]:
    """The tools, the wanted ones in their strict form, as many as the provider takes in one request."""
    tools = list(specs)
    for place, spec in enumerate(specs):
        form = strict_form(provider, spec.input_schema) if spec.name in wanted else None
        if form is not None:
            strict = spec.model_copy(update={"input_schema": form, "strict": True})
            if fits_strict_limits(provider, [*tools[:place], strict]):
                tools[place] = strict
    return tuple(tools)


def _probe(form: JsonObject) -> ToolSpec:
    return ToolSpec(name="probe", description="", input_schema=form, strict=True)


def _write(schema: JsonObject, mode: _StrictMode) -> JsonObject | None:
    schema = fit_values(schema)
    try:
        form = _form(schema, mode, 0)
        for word in ("$defs", "definitions"):
            if word in schema:
                form[word] = {name: _form(one, mode, 1) for name, one in schema[word].items()}
    except _NoForm:
        return None
    return form if mode.recursive or not _refers_to_itself(form) else None


def _form(schema: object, mode: _StrictMode, depth: int) -> JsonObject:
    if not isinstance(schema, dict) or depth > MAX_DEPTH or (_SPREAD & schema.keys() and not mode.lenient):
        raise _NoForm
    if "$ref" in schema:
        if not str(schema["$ref"]).startswith(("#/$defs/", "#/definitions/")):
            raise _NoForm
        return {"$ref": schema["$ref"]}
    form = {word: schema[word] for word in _TEXTS if word in schema}
    _choose(form, schema, mode, depth)
    kinds = schema.get("type")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind == "object":
            _close(form, schema, mode, depth)
        elif kind == "array":
            _list(form, schema, mode, depth)
    _describe_the_rest(form, schema, mode)
    return form


def _list(form: JsonObject, schema: JsonObject, mode: _StrictMode, depth: int) -> None:
    if "items" in schema or not mode.lenient:
        form["items"] = _form(schema.get("items"), mode, depth + 1)
    if schema.get("minItems") in (0, 1):
        form["minItems"] = schema["minItems"]


def _choose(form: JsonObject, schema: JsonObject, mode: _StrictMode, depth: int) -> None:
    """Copy the type, the choices or the alternatives."""
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        if "properties" in schema:
            raise _NoForm  # the properties apply in each branch
        form["anyOf"] = [_form(one, mode, depth + 1) for one in branches]
        return
    if "allOf" in schema and "type" not in schema:
        form["allOf"] = [_form(one, mode, depth + 1) for one in schema["allOf"]]
        return
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is not None:
        if not all(isinstance(value, (str, int, float, bool, type(None))) for value in values):
            raise _NoForm
        form["enum"] = list(values)
    if "type" in schema:
        form["type"] = schema["type"]
    elif values is None:
        raise _NoForm  # any value is allowed


def _close(form: JsonObject, schema: JsonObject, mode: _StrictMode, depth: int) -> None:
    properties, required = schema.get("properties"), list(schema.get("required", ()))
    closed = schema.get("additionalProperties", True)
    if not mode.lenient and (isinstance(closed, dict) or (not properties and closed is not False)):
        raise _NoForm  # a map or a free-form object; when closed, it could only be empty
    properties = properties or {}
    if any(name not in properties for name in required):
        if not mode.lenient:
            raise _NoForm
        required = [name for name in required if name in properties]
    form["properties"] = {name: _form(one, mode, depth + 1) for name, one in properties.items()}
    form["additionalProperties"] = False
    if not mode.optional:
        if not all(name in required or _can_be_required(one) for name, one in properties.items()):
            raise _NoForm
        required = list(properties)
    form["required"] = required


def _can_be_required(schema: object) -> bool:
    """Can an optional property be made required? Yes, if it can be null, or if its default is known."""
    if not isinstance(schema, dict):
        return False
    forms = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return "default" in schema or any("null" in (one.get("type") or ()) for one in forms if isinstance(one, dict))


_STRUCTURE = frozenset({
    "type", "properties", "required", "additionalProperties", "items", "anyOf", "oneOf", "enum", "const", "$ref", "$defs",
    "definitions",
})  # fmt: skip


def _describe_the_rest(form: JsonObject, schema: JsonObject, mode: _StrictMode) -> None:
    """Move unsupported constraints to the description. The author's schema still validates them."""
    unsupported = {}
    kinds = types(schema)
    if isinstance(schema.get("additionalProperties"), dict):
        unsupported["additionalProperties"] = schema["additionalProperties"]
    for word in sorted(schema.keys() - _STRUCTURE - _TEXTS - _LEFT_OUT - form.keys()):
        if not fits_type(word, kinds):
            continue  # it has no effect, and a strict mode refuses it
        if word in mode.keeps or (word == "format" and schema[word] in mode.formats):
            form[word] = schema[word]
        else:
            unsupported[word] = schema[word]
    if unsupported:
        form["description"] = f"{form.get('description', '')} ({canonical_json(unsupported)[1:-1]})".strip()[:2_000]


def _refers_to_itself(form: JsonObject) -> bool:
    """Does any definition refer to itself, directly or through others?"""
    defs = {f"#/{word}/{name}": one for word in ("$defs", "definitions") for name, one in form.get(word, {}).items()}
    leads = {name: {other for other in defs if f'"{other}"' in canonical_json(one)} for name, one in defs.items()}

    def reaches(start: str) -> bool:
        todo, seen = list(leads[start]), set()
        while todo:
            name = todo.pop()
            if name == start:
                return True
            if name not in seen:
                seen.add(name)
                todo += leads[name]
        return False

    return any(reaches(name) for name in defs)
