"""The top level of a tool's schema. It describes an object, because arguments are named.

Real servers omit `type`, and the standard allows that: a keyword such as `minProperties` or `items` has no effect on values of
another type. So a top level without `type` counts as an object if all of its keywords belong to JSON Schema. With any other
name it is a map of properties or contains a typo, and would accept every call.
"""

from __future__ import annotations

import difflib

from midwatch.orchestration.validation.problems import show
from midwatch.orchestration.validation.schema_refused import SchemaRefused
from midwatch.schemas.contract import JsonObject

KEYWORDS = frozenset({
    "$schema", "$id", "$ref", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "$comment", "$defs", "definitions",
    "$recursiveRef", "$recursiveAnchor", "type", "enum", "const", "format", "default",
    "title", "description", "examples", "deprecated", "readOnly", "writeOnly",
    "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties",
    "unevaluatedProperties", "dependentRequired", "dependentSchemas", "dependencies",
    "allOf", "anyOf", "oneOf", "not", "if", "then", "else",
    "items", "prefixItems", "additionalItems", "contains", "minContains", "maxContains", "minItems", "maxItems", "uniqueItems",
    "unevaluatedItems", "minLength", "maxLength", "pattern", "contentEncoding", "contentMediaType", "contentSchema",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
})  # fmt: skip
"""The keywords of draft 2020-12 and draft 07 (their metaschemas; a test compares them)."""

_ANNOTATIONS = frozenset({"nullable", "example", "discriminator", "externalDocs", "xml"})
"""Keywords that OpenAPI adds. Servers that are made from an OpenAPI file leave them in."""


def to_object(schema: JsonObject) -> JsonObject:
    """The schema with `"type": "object"` at its top level. It is the same object if nothing has to change.

    Raises:
        SchemaRefused: the top level does not describe an object.

    """
    if "type" in schema:
        kinds = schema["type"]
        if kinds == "object":
            return schema
        if isinstance(kinds, list) and "object" in kinds:
            return {**schema, "type": "object"}
        raise SchemaRefused("object", f'schema /type: expected "object" (arguments are named), got {show(kinds)}')
    strange = [name for name in schema if name not in KEYWORDS | _ANNOTATIONS and not name.startswith("x-")]
    if strange:
        raise SchemaRefused(
            "object", f'schema /type: expected "object" (arguments are named), got nothing; {_hint(strange[0])}'
        )
    return {"type": "object", **schema}


def _hint(name: str) -> str:
    close = difflib.get_close_matches(name[:80], KEYWORDS, 1)
    if close and close[0] != name:
        return f"{show(name)} is not a keyword of JSON Schema, did you mean {show(close[0])}?"
    return (
        f'{show(name)} is not a keyword of JSON Schema; put the properties under "properties", or add "type": "object"'
    )
