"""A schema in the form that a provider can constrain a model's decoding by: sent when asking did not help.

Whatever satisfies the strict form satisfies the author's schema, or is judged by it as always: objects are closed, what
the provider can't constrain is said in the description instead, and no value is made possible that was not. Where that
can't be done (a free-form object, an optional value that may not be null) there is no strict form, and none is sent.

Sources: OpenAI's guide to structured outputs and Anthropic's to strict tools, as both vendors' SDKs apply them
(`openai.lib._pydantic`, `anthropic.lib._parse._transform`).
"""

from __future__ import annotations

from dataclasses import dataclass

from midwatch.schemas.contract import JsonObject, canonical_json


@dataclass(frozen=True)
class _Dialect:
    keeps: frozenset[str]
    """Assertions that constrain decoding; others are put into words."""
    formats: frozenset[str]
    optional: bool
    """Properties may be left out; otherwise each must be said, if only as null."""
    recursive: bool


_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})

DIALECTS = {
    "openai": _Dialect(_NUMBERS | {"pattern", "minItems", "maxItems"}, _FORMATS, optional=False, recursive=True),
    "anthropic": _Dialect(frozenset(), _FORMATS | {"uri"}, optional=True, recursive=False),
}
"""By provider. One that is not here is never asked for strict mode."""

MAX_DEPTH = 10
"""OpenAI's bound on nesting, and more than Anthropic's grammars grow to."""

_SAID = frozenset({"description", "title"})
_LEFT_OUT = frozenset({"examples", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly"})
_SPREAD = frozenset({"allOf", "patternProperties", "$dynamicRef", "prefixItems", "unevaluatedProperties"})
"""Leaving these out, or closing an object around them, would change what can be said."""


class _NoForm(Exception):
    """There is no strict form."""


def strict_form(provider: str, schema: JsonObject) -> JsonObject | None:
    """The schema as `provider` takes it in strict mode; None when it has no such form there, or no such mode."""
    dialect = DIALECTS.get(provider)
    if dialect is None or schema.get("type") != "object":
        return None
    try:
        form = _form(schema, dialect, 0)
        for word in ("$defs", "definitions"):
            if word in schema:
                form[word] = {name: _form(one, dialect, 1) for name, one in schema[word].items()}
    except _NoForm:
        return None
    if not dialect.recursive and _refers_to_itself(form):
        return None
    return form


def _form(schema: object, dialect: _Dialect, depth: int) -> JsonObject:
    if not isinstance(schema, dict) or depth > MAX_DEPTH or _SPREAD & schema.keys():
        raise _NoForm
    if "$ref" in schema:
        if not str(schema["$ref"]).startswith(("#/$defs/", "#/definitions/")):
            raise _NoForm
        return {"$ref": schema["$ref"]}
    form = {word: schema[word] for word in _SAID if word in schema}
    _choose(form, schema, dialect, depth)
    kinds = schema.get("type")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind == "object":
            _close(form, schema, dialect, depth)
        elif kind == "array":
            form["items"] = _form(schema.get("items"), dialect, depth + 1)
    _say_the_rest(form, schema, dialect)
    return form


def _choose(form: JsonObject, schema: JsonObject, dialect: _Dialect, depth: int) -> None:
    """Of which type, or which of several values or forms."""
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        if "properties" in schema:
            raise _NoForm  # what is said beside the branches holds in each of them
        form["anyOf"] = [_form(one, dialect, depth + 1) for one in branches]
        return
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is not None:
        if not all(isinstance(value, (str, int, float, bool, type(None))) for value in values):
            raise _NoForm
        form["enum"] = list(values)
    if "type" in schema:
        form["type"] = schema["type"]
    elif values is None:
        raise _NoForm  # anything at all


def _close(form: JsonObject, schema: JsonObject, dialect: _Dialect, depth: int) -> None:
    properties, required = schema.get("properties"), list(schema.get("required", ()))
    closed = schema.get("additionalProperties", True)
    if isinstance(closed, dict) or (not properties and closed is not False):
        raise _NoForm  # a map, or a free-form object: closed, it could only be empty
    properties = properties or {}
    if any(name not in properties for name in required):
        raise _NoForm
    form["properties"] = {name: _form(one, dialect, depth + 1) for name, one in properties.items()}
    form["additionalProperties"] = False
    if not dialect.optional:
        if not all(name in required or _can_be_said(one) for name, one in properties.items()):
            raise _NoForm
        required = list(properties)
    form["required"] = required


def _can_be_said(schema: object) -> bool:
    """An optional value that may be demanded: it may be null, or is known when it was left out."""
    if not isinstance(schema, dict):
        return False
    forms = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return "default" in schema or any("null" in (one.get("type") or ()) for one in forms if isinstance(one, dict))


_STRUCTURE = frozenset({
    "type", "properties", "required", "additionalProperties", "items", "anyOf", "oneOf", "enum", "const", "$ref", "$defs",
    "definitions",
})  # fmt: skip


def _say_the_rest(form: JsonObject, schema: JsonObject, dialect: _Dialect) -> None:
    """What is not constrained is put into words: the author's schema judges it all the same."""
    said = {}
    for word in sorted(schema.keys() - _STRUCTURE - _SAID - _LEFT_OUT):
        if word in dialect.keeps or (word == "format" and schema[word] in dialect.formats):
            form[word] = schema[word]
        else:
            said[word] = schema[word]
    if said:
        form["description"] = f"{form.get('description', '')} ({canonical_json(said)[1:-1]})".strip()[:2_000]


def _refers_to_itself(form: JsonObject) -> bool:
    """Does any definition lead back to itself?"""
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
