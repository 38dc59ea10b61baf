"""Walk through the subschemas of a JSON Schema, and resolve its local references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from midwatch.schemas.contract import JsonObject

Place = tuple[object, ...]
Part = tuple[Place, JsonObject]
"""A subschema, with its path in the schema."""

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
_SINGLE = (
    "additionalProperties", "additionalItems", "unevaluatedProperties", "unevaluatedItems", "not", "if", "then", "else",
    "contains", "propertyNames",
)  # fmt: skip
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")


def every_part(schema: JsonObject) -> Iterator[Part]:
    """Every subschema with its path, the root first. The caller may change a part before its subschemas are read."""
    todo: list[Part] = [((), schema)]
    while todo:
        path, part = todo.pop()
        yield path, part
        todo += [((*path, *step), one) for step, one in reversed(list(parts_below(part)))]


def parts_below(part: JsonObject) -> Iterator[Part]:
    """The direct subschemas of a schema, each with the steps that lead to it."""
    below: list[tuple[Place, object]] = []
    for keyword in _MAPS:
        below += [((keyword, name), one) for name, one in members(part.get(keyword))]
    below += [((keyword,), part.get(keyword)) for keyword in ("items", *_SINGLE)]
    for keyword in ("items", *_SEVERAL):
        found = part.get(keyword)
        below += [((keyword, n), one) for n, one in enumerate(found if isinstance(found, list) else ())]
    yield from ((step, one) for step, one in below if isinstance(one, dict))


def members(value: object) -> Iterable[tuple[str, object]]:
    """Names and values of an object; empty for any other value."""
    return value.items() if isinstance(value, dict) else ()


def types(part: JsonObject) -> list[object]:
    """The types that a schema allows; `[None]` if it has no `type`."""
    kind = part.get("type")
    return kind if isinstance(kind, list) else [kind]


def resolve_reference(root: JsonObject, reference: object) -> object:
    """Resolve a reference of the form `#/...`. None if it is broken, or has another form."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: object = root
    for step in unquote(reference)[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list):
            found = found[int(name)] if name.isdecimal() and int(name) < len(found) else None
        else:
            found = found.get(name) if isinstance(found, dict) else None
    return found
