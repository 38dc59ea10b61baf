"""Check a schema when it is declared. Refuse it if it is invalid, unlimited, too slow, or refers outside of itself.

A schema may come from anywhere (an MCP server, an OpenAPI file), so it is untrusted input. The library would fetch `http://`
references, read `file://` ones and show their content in the error (measured).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

from jsonschema import SchemaError
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7, DRAFT202012, SchemaResource

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.validation.cost import EffortBudget
from midwatch.orchestration.validation.keywords import DRAFTS, LATEST
from midwatch.orchestration.validation.pattern_cost import pattern_cost
from midwatch.orchestration.validation.problems import from_error, pointer, show
from midwatch.orchestration.validation.regex_safety import find_hazard
from midwatch.schemas.contract import MAX_DEPTH, JsonObject

MAX_SCHEMA_BYTES = 200_000
"""The largest of 200 recorded schemas has 6 KB."""

MAX_EXPANSION = 1_000
"""Most subschemas that apply to one value. A schema of 30 lines that each double the next would apply 2^30."""

_SPECIFICATIONS = {LATEST: DRAFT202012, "http://json-schema.org/draft-07/schema": DRAFT7}
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_OF_OBJECTS = frozenset({
    "$schema", "$id", "$comment", "$defs", "definitions", "$ref", "title", "description", "default", "examples",
    "properties", "required", "additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "not", "if", "then",
    "else",
})  # fmt: skip
"""Keywords of a top level that may omit `type`. With any other, it is a typo or a map of properties."""

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_FOREIGN = {
    "dict": "object", "hashmap": "object", "struct": "object", "float": "number", "double": "number", "int": "integer",
    "long": "integer", "list": "array", "tuple": "array", "set": "array", "str": "string", "char": "string",
    "bool": "boolean", "none": "null",
}  # fmt: skip


def check_and_copy(schema: object) -> tuple[JsonObject, type[Validator]]:
    """Check a schema. Returns a private copy of it, and the validator class of its draft.

    Raises:
        ConfigError: the schema can't be used. The message names the first problem.

    """
    if not isinstance(schema, dict):
        raise ConfigError(f"schema: expected a dict (a JSON Schema), got {type(schema).__name__}")
    copy = _as_json(schema)
    draft = copy.get("$schema", LATEST)
    draft = draft.removesuffix("#") if isinstance(draft, str) else show(draft)
    if draft not in DRAFTS:
        known = ", ".join(DRAFTS)
        raise ConfigError(f"schema /$schema: expected one of {known}, got {draft[:200]!r}; rewrite it, or leave it out")
    try:
        DRAFTS[draft].check_schema(copy)
    except SchemaError as error:
        raise ConfigError(_invalid(error)) from None
    except RecursionError:
        raise ConfigError("schema: nested too deeply to be checked; flatten it") from None
    except (
        FutureWarning
    ) as warning:  # with warnings as errors, Python raises this for a pattern whose meaning may change
        raise ConfigError(f"schema: a pattern with an unclear meaning: {warning}; escape the bracket") from None
    if "type" not in copy and copy.keys() <= _OF_OBJECTS:
        copy = {"type": "object", **copy}  # real servers omit it, and arguments are always named
    if copy.get("type") != "object":
        came = show(copy["type"]) if "type" in copy else "nothing"
        raise ConfigError(f'schema /type: expected "object" (arguments are named), got {came}')
    _Walk(copy, draft).check()
    return copy, DRAFTS[draft]


def _as_json(schema: JsonObject) -> JsonObject:
    if _deeper_than(schema, MAX_DEPTH):
        raise ConfigError(f"schema: nested deeper than {MAX_DEPTH} levels (or endless); flatten it with $defs")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"schema: expected JSON values only: {error}") from None
    if len(text) > MAX_SCHEMA_BYTES:
        raise ConfigError(
            f"schema: {len(text):,} bytes; at most {MAX_SCHEMA_BYTES:,}, since no model reads that much; split the tool"
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


def _invalid(error: SchemaError) -> str:
    path, value = list(error.absolute_path), error.instance
    where = f"schema {pointer(path)}"
    if path[-1:] == ["type"] and path[-2:-1] not in (["properties"], ["$defs"]):
        words = value if isinstance(value, list) else [value]
        return f"{where}: {_unknown_type(next((word for word in words if word not in _TYPES), value))}"
    if isinstance(value, str) and error.validator == "format" and error.validator_value == "regex":
        return f"{where}: {find_hazard(value) or 'not a regular expression'} ({show(value)})"
    return f"{where}: not valid JSON Schema: {error.message[:300]}"


def _unknown_type(came: object) -> str:
    word = came.lower() if isinstance(came, str) else ""
    if word == "any":
        return "'any' is not a type; leave `type` out to accept any value"
    close = _FOREIGN.get(word) or next(iter(difflib.get_close_matches(word, _TYPES, 1)), None)
    hint = f"; did you mean {close!r}?" if close else ""
    return f"expected one of {', '.join(_TYPES)}, got {show(came)}{hint}"


class _Walk:
    """Visits every subschema once, and follows its references."""

    def __init__(self, schema: JsonObject, draft: str) -> None:
        self.draft = draft
        self.specification = _SPECIFICATIONS[draft]
        self.root: SchemaResource = self.specification.create_resource(schema)
        self.edges: dict[int, list[int]] = {}
        """Subschema -> subschemas that apply to the same value. These edges must not form a circle."""

    def check(self) -> None:
        registry: Registry[Any] = Registry()
        todo = [(self.root, registry.resolver_with_root(self.root))]
        while todo:
            resource, resolver = todo.pop()
            contents = resource.contents
            if not isinstance(contents, dict) or id(contents) in self.edges:
                continue
            self._check_one(contents)
            if "default" in contents:
                self._check_default(contents, resolver)
            edges = self.edges[id(contents)] = [id(one) for one in _in_place(contents)]
            for keyword in ("$ref", "$dynamicRef"):
                if keyword in contents:
                    found = self._resolve(resolver, keyword, contents[keyword])
                    edges.append(id(found.contents))
                    todo.append((self.specification.create_resource(found.contents), found.resolver))
            todo.extend((below, resolver.in_subresource(below)) for below in resource.subresources())
        _check_expansion(self.edges)

    def _check_one(self, contents: JsonObject) -> None:
        own = contents.get("$schema", self.draft)
        if isinstance(own, str) and own.removesuffix("#") != self.draft:
            raise ConfigError(f"schema: only one `$schema` is allowed; {self.draft} and {own[:200]!r} are mixed")
        for pattern in [contents.get("pattern"), *contents.get("patternProperties", {})]:
            why = find_hazard(pattern) if isinstance(pattern, str) else None
            if why:
                advice = (
                    "rewrite it so that each repetition begins or ends with a character that it can't contain elsewhere"
                )
                raise ConfigError(f"schema: the pattern {show(pattern)} is refused: {why}; {advice}")
            if isinstance(pattern, str):
                pattern_cost(pattern)  # computed now, not during the first call

    def _check_default(self, contents: JsonObject, resolver: Any) -> None:
        """Refuse a default that the schema itself would refuse (`"type": "string", "default": null`)."""
        default, validator = contents["default"], cast(Any, DRAFTS[self.draft])(contents, registry=Registry())
        try:
            first = next(validator.evolve(_resolver=resolver, format_checker=EffortBudget()).iter_errors(default), None)
        except Exception:  # a broken reference is reported when it is visited
            return
        if first is not None:
            problem = next(from_error(first))
            where = pointer(_path_to(self.root.contents, contents))
            raise ConfigError(
                f"schema {where}/default: expected {problem.expected}, got {problem.got}; correct the default, "
                "let the schema allow it, or leave it out"
            )

    def _resolve(self, resolver: Any, keyword: str, reference: object) -> Any:
        try:
            return resolver.lookup(reference)
        except Exception as error:
            raise ConfigError(
                f"schema: {keyword} {show(reference)} does not point to a place inside this schema; "
                "only local references such as '#/$defs/name' are followed, and nothing is fetched"
            ) from error


def _path_to(root: object, wanted: object) -> list[object]:
    """Find the path to a part of the schema."""
    todo: list[tuple[list[object], object]] = [([], root)]
    while todo:
        path, value = todo.pop()
        if value is wanted:
            return path
        steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        todo.extend(([*path, step], below) for step, below in steps)
    return []


def _in_place(contents: JsonObject) -> Iterator[JsonObject]:
    for keyword in _IN_PLACE:
        value = contents.get(keyword)
        several = value if isinstance(value, Sequence) else [value]
        if keyword in ("dependentSchemas", "dependencies") and isinstance(value, dict):
            several = list(value.values())
        yield from (one for one in several if isinstance(one, dict))


def _check_expansion(edges: dict[int, list[int]]) -> None:
    """Count how many subschemas apply to one value, from the leaves up. Without recursion, since a chain may be long."""
    counts: dict[int, int] = {}
    for root in edges:
        path = [root]
        open_nodes: set[int] = set()
        while path:
            node = path[-1]
            waiting = [child for child in edges.get(node, ()) if child not in counts]
            if node in counts or not waiting:
                counts.setdefault(node, 1 + sum(counts[child] for child in edges.get(node, ())))
                open_nodes.discard(path.pop())
            elif open_nodes & set(waiting) or node in waiting:
                raise ConfigError("schema: a reference leads back to itself for the same value")
            else:
                open_nodes.add(node)
                path.append(waiting[0])
            if counts.get(node, 0) > MAX_EXPANSION:
                raise ConfigError(f"schema: over {MAX_EXPANSION:,} subschemas apply to one value; write it flatter")
