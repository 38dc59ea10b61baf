"""A JSON Schema in the OpenAPI subset that Gemini's endpoint takes. The author's own schema still validates arguments.

The endpoint refuses the whole request for one keyword that it does not know (`const`, `additionalProperties`, `$ref`).
"""

from __future__ import annotations

from midwatch.orchestration.validation.subschemas import target
from midwatch.schemas.contract import JsonObject

KEPT = ("description", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern", "nullable")
"""Keywords that go through as they are."""

MAX_PARTS = 2_000
"""Most parts that are written. References are replaced by what they point to, so a small schema can be a huge one."""

_TYPING = frozenset({"type", "properties", "items", "prefixItems", "enum", "const", "$ref", "anyOf", "oneOf", "allOf"})
"""Keywords by which a schema says what it describes."""

ANYTHING: JsonObject = {"type": "object"}
"""What stands for a part that can't be written: one that contains itself, or one too many."""


def for_gemini(schema: JsonObject) -> JsonObject:
    """The schema with each reference, `allOf`, union of types and constant replaced by the nearest accepted form."""
    # A root that names no type is a tool without parameters (a real one said only `$schema`), not a string.
    typed = schema if _TYPING & schema.keys() else {"type": "object", **schema}
    return _Writer(typed).write(typed, frozenset({"#"}))


class _Writer:
    """Writes one schema. `followed` are the references on the way to a part: meeting one again is a cycle."""

    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._left = MAX_PARTS

    def write(self, part: object, followed: frozenset[str]) -> JsonObject:
        if not isinstance(part, dict):
            return dict(ANYTHING)
        schema, followed = self._flat(part, followed)
        out: JsonObject = {key: schema[key] for key in KEPT if key in schema}
        _add_values(schema, out)
        variants = _variants(schema)
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
        properties, items = schema.get("properties"), _items(schema)
        if isinstance(properties, dict):
            out["properties"] = {name: self.write(value, followed) for name, value in properties.items()}
            required = [name for name in dict.fromkeys(schema.get("required", ())) if name in properties]
            if required:
                out["required"] = required
        if out.get("type") == "array" or items is not None:
            # An array whose items are not described is refused.
            out["items"] = self.write(items, followed) if items else {"type": "string"}
        out.setdefault("type", "object" if "properties" in out else "array" if "items" in out else "string")
        return out

    def _flat(self, schema: JsonObject, followed: frozenset[str]) -> tuple[JsonObject, frozenset[str]]:
        """The schema with its reference and its `allOf` merged in, what it says itself first."""
        self._left -= 1
        flat: JsonObject = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        reference = schema.get("$ref")
        parts = [part for part in schema.get("allOf", ()) if isinstance(part, dict)]
        if isinstance(reference, str):
            if reference in followed or self._left < 0:
                return {**ANYTHING, **flat}, followed
            followed |= {reference}
            parts.append(self._target(reference))
        for part in parts:
            merged, followed = self._flat(part, followed)
            _merge(flat, merged)
        return flat, followed

    def _target(self, reference: str) -> JsonObject:
        """What a local reference points to; an empty schema when it points elsewhere."""
        found = target(self._root, reference)
        return found if isinstance(found, dict) else {}


def _variants(schema: JsonObject) -> list[JsonObject]:
    """The alternatives of a schema: one for each of its types, or those it lists.

    Beside properties a list only narrows them ("at least one of these is required"), and the format can't say both.
    """
    types = schema.get("type")
    if isinstance(types, list):
        return [{**schema, "type": name} for name in types]
    if "properties" in schema:
        return []
    return [item for key in ("anyOf", "oneOf") for item in schema.get(key, ()) if isinstance(item, dict)]


def _items(schema: JsonObject) -> object:
    """One schema for all items: the format has no places in a list."""
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
    """`enum` and `const`: an enumeration where all values are strings, words in the description where not."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(values, list):
        return
    if all(isinstance(value, str) for value in values):
        out["enum"] = values
        return
    listed = "One of: " + ", ".join(str(value) for value in values)
    out["description"] = f"{out['description']} {listed}" if out.get("description") else listed
