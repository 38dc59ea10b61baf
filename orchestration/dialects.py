"""What each provider demands of a tool's JSON Schema, checked when an agent is constructed, not at its first call.

One tool in a form that the vendor does not take makes it refuse every request of the agent. The author's schema is
never changed: it judges the arguments in any case. What a provider's endpoint does not take and its adapter rewrites
(`workers/providers/gemini_schema.py`) is said as mended; what only makes the model guess is said; what the vendor
answers with 400 is refused here. Sources: the vendors' own error texts, as quoted in public issues in 2025 and 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestration.errors import ConfigError
from orchestration.problems import pointer
from schemas.contract import JsonObject
from schemas.tools import ToolSpec

Part = tuple[tuple[object, ...], JsonObject]
"""Where a subschema stands, and what it says."""

Rule = Callable[[Sequence[Part]], Iterator[tuple[tuple[object, ...], str]]]
"""Gives the places that break it, with a word for each: a property, a keyword."""


@dataclass(frozen=True)
class Finding:
    """One thing that a provider takes otherwise than it is written."""

    rule: str
    where: str
    """`tool/properties/name`: the first place of this tool."""
    said: str
    mended: bool
    """The request is sent in a form that the provider takes."""


def check(provider: str, tools: Iterable[ToolSpec]) -> tuple[Finding, ...]:
    """What this provider takes otherwise. A provider whose rules are not known has no findings.

    Raises:
        ConfigError: the vendor would refuse every request that offers this tool; the first such finding.

    """
    return tuple(finding for tool in tools for finding in _check_tool(provider, tool))


def _check_tool(provider: str, tool: ToolSpec) -> Iterator[Finding]:
    parts = list(_parts(tool.input_schema))
    rules = RULES.get(provider, ())
    if provider == "openai" and tool.strict:
        rules = (*rules, *STRICT)
    for name, rule, effect, advice in rules:
        places = list(rule(parts))
        if not places:
            continue
        words = list(dict.fromkeys(word for _, word in places))
        listed = ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
        where = f"{tool.name}{pointer(places[0][0])}"
        if effect == REFUSED:
            raise ConfigError(f"tool {where}: {provider} refuses {listed}: {advice}")
        yield Finding(name, where, f"{provider}: {listed}: {advice}", mended=effect == MENDED)


MENDED, TOLD, REFUSED = "mended", "told", "refused"

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_COMPOSED = ("anyOf", "oneOf", "allOf", "not", "enum", "const")

_GEMINI_TAKES = frozenset({
    "type", "description", "properties", "required", "items", "enum", "anyOf", "nullable", "pattern",
    "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength",
})  # fmt: skip
_GEMINI_REWRITES = frozenset({"$ref", "$defs", "definitions", "allOf", "oneOf", "const"})
_STRICT_LACKS = ("allOf", "oneOf", "not", "dependentRequired", "dependentSchemas", "if", "then", "else")

_ANTHROPIC_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def _parts(schema: JsonObject) -> Iterator[Part]:
    """Every subschema with its place, the root first."""
    todo: list[Part] = [((), schema)]
    while todo:
        path, part = todo.pop()
        yield path, part
        below: list[tuple[tuple[object, ...], object]] = []
        for keyword in _MAPS:
            below += [((*path, keyword, name), one) for name, one in _items(part.get(keyword))]
        below += [((*path, keyword), part.get(keyword)) for keyword in _SINGLE]
        for keyword in _SEVERAL:
            found = part.get(keyword)
            below += [((*path, keyword, n), one) for n, one in enumerate(found if isinstance(found, list) else ())]
        todo += [(place, one) for place, one in reversed(below) if isinstance(one, dict)]


def _items(value: object) -> Iterable[tuple[str, object]]:
    return value.items() if isinstance(value, dict) else ()


def _types(part: JsonObject) -> list[object]:
    kind = part.get("type")
    return kind if isinstance(kind, list) else [kind]


def _composed_root(*keywords: str) -> Rule:
    def rule(parts: Sequence[Part]) -> Iterator[tuple[tuple[object, ...], str]]:
        yield from (((), f"{word} at the top level") for word in keywords if word in parts[0][1])

    return rule


def _property_names(parts: Sequence[Part]) -> Iterator[tuple[tuple[object, ...], str]]:
    """At the top level only: deeper names are not looked at."""
    for name in parts[0][1].get("properties", {}):
        if not _ANTHROPIC_PROPERTY.fullmatch(name):
            yield ("properties", name), f"the property name {name[:80]!r}"


def _untyped_arrays(parts: Sequence[Part]) -> Iterator[tuple[tuple[object, ...], str]]:
    yield from ((path, "an array without `items`") for path, part in parts if _lacks_items(part))


def _lacks_items(part: JsonObject) -> bool:
    return "array" in _types(part) and "items" not in part


def _optional(parts: Sequence[Part]) -> Iterator[tuple[tuple[object, ...], str]]:
    for path, part in parts:
        for name, one in _items(part.get("properties")):
            if name not in part.get("required", ()) and not (isinstance(one, dict) and "default" in one):
                yield (*path, "properties", name), str(name)[:80]


def _keywords(wanted: Callable[[str], bool]) -> Rule:
    def rule(parts: Sequence[Part]) -> Iterator[tuple[tuple[object, ...], str]]:
        yield from (((*path, word), f"`{word}`") for path, part in parts for word in part if wanted(word))

    return rule


def _nullable(parts: Sequence[Part]) -> Iterator[tuple[tuple[object, ...], str]]:
    for path, part in parts:
        branches = [one for key in ("anyOf", "oneOf") for one in part.get(key, ()) if isinstance(one, dict)]
        if "null" in _types(part) or any("null" in _types(one) for one in branches):
            yield path, "null as a type"


def _valued(parts: Sequence[Part]) -> Iterator[tuple[tuple[object, ...], str]]:
    for path, part in parts:
        if not all(isinstance(one, str) for one in part.get("enum", [part.get("const", "")])):
            yield path, "choices that are not strings"


def _open_objects(parts: Sequence[Part]) -> Iterator[tuple[tuple[object, ...], str]]:
    for path, part in parts:
        if ("properties" in part or "object" in _types(part)) and part.get("additionalProperties") is not False:
            yield path, "an object without `additionalProperties: false`"


def _not_required(parts: Sequence[Part]) -> Iterator[tuple[tuple[object, ...], str]]:
    for path, part in parts:
        for name in part.get("properties", {}):
            if name not in part.get("required", ()):
                yield (*path, "properties", name), f"the optional property {name[:80]!r}"


_SPLIT = "say the alternatives in the description and check them in the tool, or make one property of them"
_LEAVE = "leave strict mode off for this tool, or"

STRICT: tuple[tuple[str, Rule, str, str], ...] = (
    ("closed", _open_objects, REFUSED, f"in strict mode every object is closed; {_LEAVE} close it"),
    ("required", _not_required, REFUSED, f"in strict mode all are required; {_LEAVE} make it required and nullable"),
    ("keyword", _keywords(lambda word: word in _STRICT_LACKS), REFUSED, f"strict mode has no such keyword; {_LEAVE} drop it"),
    ("default", _keywords(lambda word: word == "default"), TOLD, "strict mode demands every value, so it is never used"),
)  # fmt: skip

RULES: dict[str, tuple[tuple[str, Rule, str, str], ...]] = {
    "anthropic": (
        ("root", _composed_root("anyOf", "oneOf", "allOf"), REFUSED, _SPLIT),
        ("names", _property_names, REFUSED, "at most 64 letters, digits, `_`, `.`, `-`; rename it"),
    ),
    "openai": (
        ("root", _composed_root(*_COMPOSED), REFUSED, _SPLIT),
        ("items", _untyped_arrays, REFUSED, 'say what is in it, e.g. "items": {"type": "string"}'),
    ),
    "gemini": (
        ("reference", _keywords(_GEMINI_REWRITES.__contains__), MENDED, "sent written out, with `anyOf` and `enum`"),
        ("null", _nullable, MENDED, "sent as `nullable`"),
        ("values", _valued, MENDED, "sent as words of the description"),
        ("items", _untyped_arrays, MENDED, "sent as an array of strings"),
        ("keyword", _keywords(lambda word: word not in _GEMINI_TAKES | _GEMINI_REWRITES), MENDED,
         "not sent; the arguments are still judged by it"),
        ("optional", _optional, TOLD, "optional without a default: this model tends to fill it in; give it a default"),
    ),
}  # fmt: skip
"""By provider: name of the rule, what breaks it, what comes of it, what to do or what is sent instead."""
