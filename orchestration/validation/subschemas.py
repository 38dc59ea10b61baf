"""Every subschema of a JSON Schema with its place, and what a reference inside the schema leads to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from midwatch.schemas.contract import JsonObject

Place = tuple[object, ...]
Part = tuple[Place, JsonObject]
"""Where a subschema stands, and what it says."""

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
_SINGLE = (
    "additionalProperties", "additionalItems", "unevaluatedProperties", "unevaluatedItems", "not", "if", "then", "else",
    "contains", "propertyNames",
)  # fmt: skip
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")


def every_part(schema: JsonObject) -> Iterator[Part]:
    """Every subschema with its place, the root first. What is inside a part is read after the part was handed out."""
    todo: list[Part] = [((), schema)]
    while todo:
        path, part = todo.pop()
        yield path, part
        below: list[tuple[Place, object]] = []
        for keyword in _MAPS:
            below += [((*path, keyword, name), one) for name, one in members(part.get(keyword))]
        below += [((*path, keyword), part.get(keyword)) for keyword in ("items", *_SINGLE)]
        for keyword in ("items", *_SEVERAL):
            found = part.get(keyword)
            below += [((*path, keyword, n), one) for n, one in enumerate(found if isinstance(found, list) else ())]
        todo += [(place, one) for place, one in reversed(below) if isinstance(one, dict)]


def members(value: object) -> Iterable[tuple[str, object]]:
    """Names and values of an object; nothing of anything else."""
    return value.items() if isinstance(value, dict) else ()


def types(part: JsonObject) -> list[object]:
    """The types it allows, `[None]` where it names none."""
    kind = part.get("type")
    return kind if isinstance(kind, list) else [kind]


def target(root: JsonObject, reference: object) -> object:
    """What a reference of the form `#/...` leads to; None when it leads nowhere, or is of another form."""
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
