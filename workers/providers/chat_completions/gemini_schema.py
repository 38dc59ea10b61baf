"""Converts a JSON Schema into the OpenAPI subset that Gemini's endpoint accepts.

The endpoint refuses a whole request for one unknown keyword (`const`, `additionalProperties`, `$ref`). Arguments are
still validated by the author's own schema.
"""

from __future__ import annotations

from midwatch.orchestration.dialects.values import TYPES_OF_KEYWORD, fits_type, is_of_type, list_choices, type_of
from midwatch.orchestration.validation.subschemas import resolve_reference
from midwatch.schemas.contract import JsonObject

KEPT = ("description", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern", "nullable")
"""Keywords that Gemini accepts. One that has no effect on the schema's type is still left out."""

_OF_ALL = ("description", "nullable")
"""Keywords that belong to a schema with alternatives. All other keywords are moved into each alternative that has a
fitting type."""

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
        variants = _list_variants(schema)
        if not variants:
            return self._write_one(schema, followed)
        out: JsonObject = {key: schema[key] for key in _OF_ALL if key in schema}
        present = [variant for variant in variants if variant.get("type") != "null"]
        if len(present) < len(variants):
            out["nullable"] = True
        if len(present) == 1:
            inner = self.write(present[0], followed)
            described = " ".join(filter(None, (out.pop("description", None), inner.pop("description", None))))
            return {**inner, **out, **({"description": described} if described else {})}
        if not present:
            return {"type": "string", **out}
        out["anyOf"] = [self.write(variant, followed) for variant in present]
        return out

    def _write_one(self, schema: JsonObject, followed: frozenset[str]) -> JsonObject:
        """Write a schema with one type. A keyword that has no effect on this type is not sent."""
        kind = _type_of(schema)
        out = {key: _write_as_integer(schema[key]) for key in KEPT if key in schema and fits_type(key, [kind])}
        _add_values(schema, kind, out)
        out["type"] = kind
        properties, items = schema.get("properties"), _merge_items(schema)
        if kind == "object" and isinstance(properties, dict) and properties:
            out["properties"] = {name: self.write(value, followed) for name, value in properties.items()}
            required = [name for name in dict.fromkeys(schema.get("required", ())) if name in properties]
            if required:
                out["required"] = required
        if kind == "array":
            # Gemini refuses an array without `items`.
            out["items"] = self.write(items, followed) if items else {"type": "string"}
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
    types, values = schema.get("type"), _values(schema)
    if types is None and len(kinds := {type_of(value) for value in values}) > 1:
        types = sorted(kinds - {"integer"} if "number" in kinds else kinds)
    if isinstance(types, list):
        plain = {key: value for key, value in schema.items() if key not in ("const", "description")}
        fitting = {name: [value for value in values if is_of_type(value, [name])] for name in types}
        return [
            {**plain, "type": name, **({"enum": fitting[name]} if values else {})}
            for name in types
            if fitting[name] or not values
        ]
    if "properties" in schema:
        return []
    shared = {key: schema[key] for key in KEPT if key in schema and key not in _OF_ALL}
    return [{**shared, **one} for key in ("anyOf", "oneOf") for one in schema.get(key, ()) if isinstance(one, dict)]


def _type_of(schema: JsonObject) -> str:
    """Find the type of a schema without `type`, from its choices or from its keywords."""
    kind = schema.get("type")
    if isinstance(kind, str):
        return kind
    kinds = [type_of(value) for value in _values(schema)]
    if kinds:
        return kinds[0]
    meant = [TYPES_OF_KEYWORD[key] for key in schema if key in TYPES_OF_KEYWORD]
    return next((kind for kind in ("object", "array", "number") if any(kind in types for types in meant)), "string")


def _values(schema: JsonObject) -> list[object]:
    values = schema.get("enum", [schema["const"]] if "const" in schema else ())
    return list(values)


def _write_as_integer(value: object) -> object:
    """Gemini reads `minLength` and similar as integers, also if they are written `2.0`."""
    return int(value) if isinstance(value, float) and value == int(value) else value


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


def _add_values(schema: JsonObject, kind: str, out: JsonObject) -> None:
    """Write `enum` and `const`: as an enumeration if all values are strings with text, else in the description."""
    values = _values(schema)
    if not values:
        return
    if kind == "string" and all(isinstance(value, str) and value for value in values):
        out["enum"] = values
        return
    out["description"] = " ".join(filter(None, (out.get("description"), list_choices(values))))
