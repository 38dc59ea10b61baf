"""Visit every subschema of a declared schema: its patterns, its defaults, and the places to which its references lead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from referencing import Registry
from referencing.jsonschema import DRAFT7, DRAFT202012, SchemaResource

from midwatch.orchestration.validation.cost import EffortBudget
from midwatch.orchestration.validation.formats import prepare
from midwatch.orchestration.validation.keywords import DRAFTS, LATEST
from midwatch.orchestration.validation.patterns import BadPattern, compile_pattern
from midwatch.orchestration.validation.problems import from_error, pointer, show
from midwatch.orchestration.validation.schema_refused import SchemaRefused
from midwatch.schemas.contract import JsonObject

MAX_EXPANSION = 1_000
"""Most subschemas that apply to one value. A schema of 30 lines that each double the next would apply 2^30."""

MAX_PATTERNS_BYTES = 8_000_000
"""Most bytes of all compiled patterns: a thousand usual ones, or 120 with letters of all languages. It takes two seconds."""

_SPECIFICATIONS = {LATEST: DRAFT202012, "http://json-schema.org/draft-07/schema": DRAFT7}
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")


class SchemaWalk:
    """Visits every subschema once, and follows its references."""

    def __init__(self, schema: JsonObject, draft: str) -> None:
        self.draft = draft
        self.specification = _SPECIFICATIONS[draft]
        self.root: SchemaResource = self.specification.create_resource(schema)
        self.patterns: dict[str, int] = {}
        """Pattern -> the size of the compiled pattern."""
        self.edges: dict[int, list[int]] = {}
        """Subschema -> subschemas that apply to the same value. These edges must not form a circle."""

    def check(self) -> None:
        """Visit all of them. Raises SchemaRefused at the first that can't be used."""
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
            raise SchemaRefused(
                "draft", f"schema: only one `$schema` is allowed; {self.draft} and {show(own)} are mixed"
            )
        for pattern in [contents.get("pattern"), *contents.get("patternProperties", {})]:
            if isinstance(pattern, str):
                self._compile(pattern)
        prepare(contents.get("format"))

    def _compile(self, pattern: str) -> None:
        """Compile a pattern now, not during the first call."""
        try:
            self.patterns[pattern] = compile_pattern(pattern).size_bytes
        except BadPattern as why:
            raise SchemaRefused("pattern", f"schema: the pattern {show(pattern)} is refused: {why}") from None
        if sum(self.patterns.values()) > MAX_PATTERNS_BYTES:
            raise SchemaRefused("size", f"schema: its patterns have over {MAX_PATTERNS_BYTES:,} bytes when compiled")

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
            raise SchemaRefused(
                "default",
                f"schema {where}/default: expected {problem.expected}, got {problem.got}; correct the default, "
                "let the schema allow it, or leave it out",
            )

    def _resolve(self, resolver: Any, keyword: str, reference: object) -> Any:
        try:
            return resolver.lookup(reference)
        except Exception as error:
            raise SchemaRefused(
                "reference",
                f"schema: {keyword} {show(reference)} does not point to a place inside this schema; "
                "only local references such as '#/$defs/name' are followed, and nothing is fetched",
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
                raise SchemaRefused("reference", "schema: a reference leads back to itself for the same value")
            else:
                open_nodes.add(node)
                path.append(waiting[0])
            if counts.get(node, 0) > MAX_EXPANSION:
                raise SchemaRefused(
                    "size", f"schema: over {MAX_EXPANSION:,} subschemas apply to one value; write it flatter"
                )
