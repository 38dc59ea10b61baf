"""Arrays as the vendors take them: places of a list under `prefixItems`, and `items` for the rest.

Draft 07 wrote the places as a list under `items`, 2020-12 does not allow that any more, and the two say the same. Nothing
is narrowed: `"items": {}` allows what an array without `items` allows.
"""

from __future__ import annotations

from copy import deepcopy

from midwatch.orchestration.validation.subschemas import every_part, types
from midwatch.schemas.contract import JsonObject


def lacks_items(part: JsonObject) -> bool:
    """An array of which is not said what is in it."""
    return "array" in types(part) and "items" not in part


def has_listed_items(part: JsonObject) -> bool:
    """The form of draft 07: a list of schemas, one for each place."""
    return isinstance(part.get("items"), list)


def with_items(schema: JsonObject, *, untyped: bool) -> JsonObject:
    """The same schema, or a copy in which no `items` is a list.

    Args:
        schema: what the author wrote; it is left alone.
        untyped: give arrays without `items` such that allow anything, too.

    """
    if not _may_need_it(schema, untyped):
        return schema
    written = deepcopy(schema)
    for _, part in every_part(written):
        if has_listed_items(part):
            places, part["items"] = part["items"], part.pop("additionalItems", {})
            part.update({"prefixItems": places} if places else {})
            written.pop("$schema", None)  # where draft 07 is named, `prefixItems` means nothing
        elif untyped and lacks_items(part):
            part["items"] = {}
    return written


def _may_need_it(value: object, untyped: bool) -> bool:
    """Asked before every call, for every tool: quicker than to look only where schemas may stand.

    A value that looks like a schema only costs the longer way; it is not changed.
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
