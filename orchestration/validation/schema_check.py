"""Check a schema when it is declared. Refuse it if it is invalid, unlimited, too slow, or refers outside of itself.

A schema may come from anywhere (an MCP server, an OpenAPI file), so it is untrusted input. The library would fetch `http://`
references, read `file://` ones and show their content in the error (measured).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from jsonschema import FormatChecker, SchemaError, ValidationError
from jsonschema.protocols import Validator

from midwatch.orchestration.validation.keywords import DRAFTS, LATEST
from midwatch.orchestration.validation.problems import from_error, pointer, show
from midwatch.orchestration.validation.root_object import to_object
from midwatch.orchestration.validation.schema_refused import SchemaRefused
from midwatch.orchestration.validation.schema_walk import SchemaWalk
from midwatch.schemas.contract import MAX_DEPTH, JsonObject

MAX_SCHEMA_BYTES = 200_000
"""The largest of 200 recorded schemas has 6 KB."""

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_FOREIGN = {
    "dict": "object", "hashmap": "object", "struct": "object", "float": "number", "double": "number", "int": "integer",
    "long": "integer", "list": "array", "tuple": "array", "set": "array", "str": "string", "char": "string",
    "bool": "boolean", "none": "null",
}  # fmt: skip


class Checked(NamedTuple):
    """A schema that can be used."""

    sent: JsonObject
    """A private copy, whose top level has the type `object`. Providers get this one."""
    applied: JsonObject
    """The schema as declared, which validates the arguments. A `$ref` to its top level may describe any value."""
    draft: type[Validator]


def check_and_copy(schema: object) -> Checked:
    """Check a schema, and copy it.

    Raises:
        SchemaRefused: the schema can't be used. The message names the first problem.

    """
    if not isinstance(schema, dict):
        raise SchemaRefused("json", f"schema: expected a dict (a JSON Schema), got {type(schema).__name__}")
    copy = _as_json(schema)
    draft = copy.get("$schema", LATEST)
    draft = draft.removesuffix("#") if isinstance(draft, str) else show(draft)
    if draft not in DRAFTS:
        known = ", ".join(DRAFTS)
        came = show(copy["$schema"])
        raise SchemaRefused(
            "draft", f"schema /$schema: expected one of {known}, got {came}; rewrite it, or leave it out"
        )
    try:
        cast(Any, DRAFTS[draft]).check_schema(copy, format_checker=FormatChecker(()))
    except SchemaError as error:
        raise _invalid(error) from None
    except RecursionError:
        raise SchemaRefused("size", "schema: nested too deeply to be checked; flatten it") from None
    sent = to_object(copy)
    SchemaWalk(copy, draft).check()
    return Checked(sent, copy, DRAFTS[draft])


def _as_json(schema: JsonObject) -> JsonObject:
    if _deeper_than(schema, MAX_DEPTH):
        raise SchemaRefused(
            "size", f"schema: nested deeper than {MAX_DEPTH} levels (or endless); flatten it with $defs"
        )
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SchemaRefused("json", f"schema: expected JSON values only: {error}") from None
    if len(text) > MAX_SCHEMA_BYTES:
        raise SchemaRefused(
            "size",
            f"schema: {len(text):,} bytes; at most {MAX_SCHEMA_BYTES:,}, since no model reads that much; split the tool",
        )
    copy: JsonObject = json.loads(text)
    return copy


def _deeper_than(value: object, limit: int) -> bool:
    """Is the value nested deeper than the limit? Visits each container once per level, so that endless structures end, too."""
    level: list[object] = [value]
    for _ in range(limit + 1):
        below = {
            id(child): child for one in level for child in _children(one) if isinstance(child, (dict, list, tuple))
        }
        level = list(below.values())
        if not level:
            return False
    return True


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value


def _invalid(error: SchemaError) -> SchemaRefused:
    path, value = list(error.absolute_path), error.instance
    where = f"schema {pointer(path)}"
    if path[-1:] == ["type"] and path[-2:-1] not in (["properties"], ["$defs"]):
        words = value if isinstance(value, list) else [value]
        unknown = _unknown_type(next((word for word in words if word not in _TYPES), value))
        return SchemaRefused("schema", f"{where}: {unknown}")
    problem = next(from_error(cast(ValidationError, error)))
    message = f"{where}: not valid JSON Schema: expected {problem.expected}, got {problem.got}"
    return SchemaRefused("schema", message)


def _unknown_type(came: object) -> str:
    word = came.lower() if isinstance(came, str) else ""
    if word == "any":
        return '"any" is not a type; leave `type` out to accept any value'
    close = _FOREIGN.get(word) or next(iter(difflib.get_close_matches(word, _TYPES, 1)), None)
    hint = f"; did you mean {show(close)}?" if close else ""
    return f"expected one of {', '.join(_TYPES)}, got {show(came)}{hint}"
