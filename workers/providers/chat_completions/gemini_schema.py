"""Converts a JSON Schema into the OpenAPI subset that Gemini's endpoint accepts.

The endpoint refuses a whole request for one unknown keyword (`const`, `additionalProperties`, `$ref`). Arguments are
still validated by the author's own schema.
"""

from __future__ import annotations

from midwatch.orchestration.validation.subschemas import resolve_reference
from midwatch.schemas.contract import JsonObject

KEPT = ("description", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern", "nullable")
"""Keywords that are kept unchanged."""

MAX_PARTS = 2_000
"""Most parts that are written. References are replaced by their targets, so a small schema can become a huge one."""

_TYPING = frozenset({"type", "properties", "items", "prefixItems", "enum", "const", "$ref", "anyOf", "oneOf", "allOf"})
"""A schema that has one of these keywords says which values it describes."""

ANYTHING: JsonObject = {"type": "object"}
"""Replaces a part that can't be written because it contains itself, or because MAX_PARTS is reached."""


def convert_to_gemini(schema: JsonObject) -> JsonObject:
    """Replace each reference, `allOf`, union of types and constant by the nearest form that Gemini accepts."""
    # A root without a type belongs to a tool without parameters (a real one had only `$schema`).
    typed = schema if _TYPING & schema.keys() else {"type": "object", **schema}
    return _Writer(typed).write(typed, frozenset({"#"}))


class _Writer:
    """Writes one schema. `followed` holds the references on the path to a part, so a repeated one is a cycle."""

    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._left = MAX_PARTS

    def write(self, part: object, followed: frozenset[str]) -> JsonObject:
        if not isinstance(part, dict):
            return dict(ANYTHING)
        schema, followed = self._flatten(part, followed)
        out: JsonObject = {key: schema[key] for key in KEPT if key in schema}
        _add_values(schema, out)
        variants = _list_variants(schema)
        present = [variant for variant in variants if variant.get("type") != "null"]
        if len(present) < len(variants):
            out["nullable"] = True
        if len(present) == 1:
            return {**self.write(present[0], followed), **out}
        if present:
            out["anyOf"] = [self.write(variant, followed) for variant in present]
            return out
        if isinstance(schema.get("type"), str):
            out["type"] = schema["type"]
        return self._with_children(schema, out, followed)

    def _with_children(self, schema: JsonObject, out: JsonObject, followed: frozenset[str]) -> JsonObject:
        properties, items = schema.get("properties"), _merge_items(schema)
        if isinstance(properties, dict):
            out["properties"] = {name: self.write(value, followed) for name, value in properties.items()}
            required = [name for name in dict.fromkeys(schema.get("required", ())) if name in properties]
            if required:
                out["required"] = required
        if out.get("type") == "array" or items is not None:
            # Gemini refuses an array without `items`.
            out["items"] = self.write(items, followed) if items else {"type": "string"}
        out.setdefault("type", "object" if "properties" in out else "array" if "items" in out else "string")
        return out

    def _flatten(self, schema: JsonObject, followed: frozenset[str]) -> tuple[JsonObject, frozenset[str]]:
        """Merge the schema's reference and its `allOf` into it. The schema's own keywords win."""
        self._left -= 1
        flat: JsonObject = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        reference = schema.get("$ref")
        parts = [part for part in schema.get("allOf", ()) if isinstance(part, dict)]
        if isinstance(reference, str):
            if reference in followed or self._left < 0:
                return {**ANYTHING, **flat}, followed
            followed |= {reference}
            parts.append(self._resolve(reference))
        for part in parts:
            merged, followed = self._flatten(part, followed)
            _merge(flat, merged)
        return flat, followed

    def _resolve(self, reference: str) -> JsonObject:
        """Return the target of a reference inside this schema, or an empty schema for any other reference."""
        found = resolve_reference(self._root, reference)
        return found if isinstance(found, dict) else {}


def _list_variants(schema: JsonObject) -> list[JsonObject]:
    """Return the alternatives of a schema: one for each of its types, or the entries of `anyOf` and `oneOf`.

    If the schema has properties, `anyOf` only narrows them ("at least one of these is required"). It is left out then,
    because the format can't express both.
    """
    types = schema.get("type")
    if isinstance(types, list):
        return [{**schema, "type": name} for name in types]
    if "properties" in schema:
        return []
    return [item for key in ("anyOf", "oneOf") for item in schema.get(key, ()) if isinstance(item, dict)]


def _merge_items(schema: JsonObject) -> object:
    """Merge `prefixItems` and `items` into one schema, because the format has no positions in a list."""
    places, rest = schema.get("prefixItems"), schema.get("items")
    if not places:
        return rest
    forms = [one for one in (*places, rest) if isinstance(one, dict) and one]
    several = [form for n, form in enumerate(forms) if form not in forms[:n]]
    return several[0] if len(several) == 1 else {"anyOf": several}


def _merge(flat: JsonObject, more: JsonObject) -> None:
    for key, value in more.items():
        if key == "properties" and isinstance(flat.get(key), dict):
            flat[key] = {**value, **flat[key]}
        elif key == "required" and isinstance(flat.get(key), list):
            flat[key] = [*flat[key], *value]
        else:
            flat.setdefault(key, value)


def _add_values(schema: JsonObject, out: JsonObject) -> None:
    """Write `enum` and `const`: as an enumeration if all values are strings, else as text in the description."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(values, list):
        return
    if all(isinstance(value, str) for value in values):
        out["enum"] = values
        return
    listed = "One of: " + ", ".join(str(value) for value in values)
    out["description"] = f"{out['description']} {listed}" if out.get("description") else listed
