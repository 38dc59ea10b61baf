"""Projections of a JSON Schema onto what a vendor accepts. The author's own schema still validates all arguments."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.contract import JsonObject

GEMINI_KEYWORDS = frozenset(
    {"description", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern", "nullable"}
)
"""Keywords that go through as they are. The endpoint refuses the whole request for one it does not know."""

MAX_INLINED = 8
"""How deep references are followed; a recursive schema becomes a plain object below that."""


def is_openai_strict(schema: object) -> bool:
    """Whether a schema is in the form that OpenAI's strict mode demands: closed objects, all properties required.

    Asking for strict mode with any other schema is a 400.
    """
    if isinstance(schema, list):
        return all(is_openai_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if "properties" in schema or schema.get("type") == "object":
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if schema.get("additionalProperties") is not False or set(properties) != set(required):
            return False
    return all(is_openai_strict(value) for key, value in schema.items() if key not in ("enum", "const", "default"))


def for_gemini(schema: JsonObject) -> JsonObject:
    """The schema in the OpenAPI subset that Gemini's endpoint takes: no references, no unions of types, no `const`."""
    return _gemini(schema, schema, MAX_INLINED)


def _gemini(schema: object, root: JsonObject, depth: int) -> JsonObject:
    if depth <= 0 or not isinstance(schema, dict):
        return {"type": "object"}
    schema = _resolved(schema, root)
    out: JsonObject = {key: value for key, value in schema.items() if key in GEMINI_KEYWORDS}
    _add_values(schema, out)
    variants = [item for key in ("anyOf", "oneOf") for item in schema.get(key, ()) if isinstance(item, dict)]
    types = schema.get("type")
    if isinstance(types, list):
        variants += [{**schema, "type": name} for name in types]
    elif isinstance(types, str):
        out["type"] = types
    present = [variant for variant in variants if variant.get("type") != "null"]
    if len(present) < len(variants):
        out["nullable"] = True
    if len(present) == 1:
        return {**_gemini(present[0], root, depth - 1), **out}
    if present:
        out.pop("type", None)
        out["anyOf"] = [_gemini(variant, root, depth - 1) for variant in present]
        return out
    return _with_children(schema, out, root, depth)


def _with_children(schema: JsonObject, out: JsonObject, root: JsonObject, depth: int) -> JsonObject:
    properties = schema.get("properties")
    if isinstance(properties, dict):
        out["properties"] = {name: _gemini(value, root, depth - 1) for name, value in properties.items()}
        required = [name for name in schema.get("required", ()) if name in properties]
        if required:
            out["required"] = required
    if out.get("type") == "array" or "items" in schema:
        items = schema.get("items")
        # An array whose items are not described is refused.
        out["items"] = _gemini(items, root, depth - 1) if isinstance(items, dict) and items else {"type": "string"}
    out.setdefault("type", "object" if "properties" in out else "array" if "items" in out else "string")
    return out


def _add_values(schema: JsonObject, out: JsonObject) -> None:
    """`enum` and `const`: an enumeration of strings where it is one, words in the description where not."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(values, list):
        return
    if all(isinstance(value, str) for value in values):
        out["enum"] = values
        return
    listed = "One of: " + ", ".join(str(value) for value in values)
    out["description"] = f"{out['description']} {listed}" if out.get("description") else listed


def _resolved(schema: JsonObject, root: JsonObject) -> JsonObject:
    """The schema with a local reference replaced by its target, and `allOf` merged into it."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target: object = root
        for step in reference.removeprefix("#").strip("/").split("/") if reference.startswith("#/") else ():
            target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        own = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**target, **own} if isinstance(target, dict) and target is not root else own
    merged: JsonObject = {key: value for key, value in schema.items() if key not in ("allOf", "$ref")}
    for part in schema.get("allOf", ()):
        for key, value in (_resolved(part, root) if isinstance(part, dict) else {}).items():
            if key == "properties" and isinstance(merged.get(key), dict):
                merged[key] = {**merged[key], **value}
            elif key == "required" and isinstance(merged.get(key), list):
                merged[key] = [*merged[key], *value]
            else:
                merged.setdefault(key, value)
    return merged
