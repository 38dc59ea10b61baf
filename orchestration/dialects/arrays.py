"""Rewrite arrays for the vendors: positions of a tuple under `prefixItems`, and `items` for the rest.

Draft 07 lists the positions under `items`. Draft 2020-12 uses `prefixItems` instead, with the same meaning. The rewritten
schema allows the same values: `"items": {}` allows what an array without `items` allows.
"""

from __future__ import annotations

from copy import deepcopy

from midwatch.orchestration.validation.subschemas import every_part, types
from midwatch.schemas.contract import JsonObject


def lacks_items(part: JsonObject) -> bool:
    """Is this an array whose schema does not describe its items?"""
    return "array" in types(part) and "items" not in part


def has_listed_items(part: JsonObject) -> bool:
    """Does this have the form of draft 07, a list of schemas, one for each position?"""
    return isinstance(part.get("items"), list)


def add_items(schema: JsonObject, *, untyped: bool) -> JsonObject:
    """Rewrite a schema so that no `items` is a list. Returns the same object if nothing has to change.

    Args:
        schema: the author's schema, which is not changed.
        untyped: also add `"items": {}` to arrays without `items`.

    """
    if not _may_need_it(schema, untyped):
        return schema
    written = deepcopy(schema)
    for _, part in every_part(written):
        if has_listed_items(part):
            places, part["items"] = part["items"], part.pop("additionalItems", {})
            part.update({"prefixItems": places} if places else {})
            written.pop("$schema", None)  # draft 07 has no `prefixItems`
        elif untyped and lacks_items(part):
            part["items"] = {}
    return written


def _may_need_it(value: object, untyped: bool) -> bool:
    """Could the schema need a change? This runs before every call for every tool, so it is a quick test of all values.

    A value that only looks like a schema makes the slow path run, but is not changed.
    """
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            if has_listed_items(one) or (untyped and lacks_items(one)):
                return True
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
    return False
