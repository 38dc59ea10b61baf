"""Differences in the providers' JSON Schema support, checked when an agent is constructed, not at its first call.

If a vendor does not accept the schema of one tool, it refuses every request of the agent. There are three cases:
- The provider's adapter can rewrite the schema (`vendor_form`, `workers.providers.chat_completions.gemini_schema`): the
  difference is reported as rewritten.
- The model can only guess what is meant: the difference is reported.
- The vendor answers with 400 and nothing can rewrite the schema: it is refused here.

The author's schema is never changed, and always validates the arguments. Sources: the vendors' own error texts, as quoted in
public issues in 2025 and 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from midwatch.orchestration.dialects.arrays import has_listed_items, lacks_items
from midwatch.orchestration.dialects.root import NotOneObject, to_one_object
from midwatch.orchestration.dialects.vendor_form import ROOT_REFUSED, STRICT_MODES
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.validation.problems import pointer
from midwatch.orchestration.validation.subschemas import Part, Place, every_part, members, types
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.tools import ToolSpec

Found = Iterator[tuple[Place, str]]
"""Places that break a rule, each with a short text: a property or a keyword."""


@dataclass(frozen=True)
class Rule:
    """One construct that a provider does not accept, or treats differently."""

    name: str
    finds: Callable[[Sequence[Part]], Found]
    effect: str
    says: str
    """Advice for the author, or what is sent instead."""
    unless: str = ""
    """What to do if the schema can't be rewritten."""


@dataclass(frozen=True)
class SchemaDifference:
    """One place where a provider treats a schema differently from how it is written."""

    rule: str
    where: str
    """The first such place in the tool, such as `tool/properties/name`."""
    message: str
    rewritten: bool
    """True if the request is sent in a form that the provider accepts."""


REWRITTEN, REPORTED, REFUSED = "rewritten", "reported", "refused"

OUTPUT = "output_schema"

ROOT = "root"


def check_all(
    providers: Iterable[str], tools: Sequence[ToolSpec], output: JsonObject | None
) -> tuple[SchemaDifference, ...]:
    """Find what each of these providers treats differently. Raises ConfigError, as `check` does."""
    return tuple(difference for one in dict.fromkeys(providers) for difference in check(one, tools, output))


def check(provider: str, tools: Iterable[ToolSpec], output: JsonObject | None = None) -> tuple[SchemaDifference, ...]:
    """Find what this provider treats differently. A provider without known rules has no differences.

    Args:
        provider: the part of a model name before the colon.
        tools: the tools that are offered to the model.
        output: the schema of the final answer, which is rewritten by the same rules. What a vendor's own SDK changes
            afterwards is not included.

    Raises:
        ConfigError: the vendor would refuse every request with this tool. Raised for the first such difference.

    """
    found = [difference for tool in tools for difference in _check_tool(provider, tool)]
    if output is not None:
        rewritten = [rule for rule in RULES.get(provider, ()) if rule.effect == REWRITTEN]
        found += _check(provider, OUTPUT, output, rewritten)
    return tuple(found)


def _check_tool(provider: str, tool: ToolSpec) -> Iterator[SchemaDifference]:
    rules = RULES.get(provider, ())
    if tool.strict and provider in STRICT_MODES:
        rules = (*map(_as_written, rules), *(STRICT if provider == "openai" else ()))
    return _check(provider, tool.name, tool.input_schema, rules)


def _as_written(rule: Rule) -> Rule:
    """The same rule in strict mode, where nothing is rewritten, so that the schema is refused."""
    advice = f"in strict mode it is sent as written; {_LEAVE} {rule.unless}"
    return Rule(rule.name, rule.finds, REFUSED, advice) if rule.effect == REWRITTEN else rule


def _check(provider: str, name: str, schema: JsonObject, rules: Sequence[Rule]) -> Iterator[SchemaDifference]:
    found = list(every_part(schema))
    for rule in rules:
        places = list(rule.finds(found))
        if not places:
            continue
        words = list(dict.fromkeys(word for _, word in places))
        listed = ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
        where = f"{name}{pointer(places[0][0])}"
        refused = f"{'' if name == OUTPUT else 'tool '}{where}: {provider} refuses {listed}"
        if rule.effect == REFUSED:
            raise ConfigError(f"{refused}: {rule.says}")
        if rule.name == ROOT:
            try:  # the rewritten schema must satisfy the other rules
                found = list(every_part(to_one_object(schema).schema))
            except NotOneObject as error:
                raise ConfigError(f"{refused}, and it can't be sent as one object: {error}; {rule.unless}") from error
        yield SchemaDifference(
            rule.name, where, f"{provider}: {listed}: {rule.says}", rewritten=rule.effect == REWRITTEN
        )


_GEMINI_TAKES = frozenset({
    "type", "description", "properties", "required", "items", "enum", "anyOf", "nullable", "pattern",
    "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength",
})  # fmt: skip
_GEMINI_REWRITES = frozenset({"$ref", "$defs", "definitions", "allOf", "oneOf", "const"})
_STRICT_LACKS = ("allOf", "oneOf", "not", "dependentRequired", "dependentSchemas", "if", "then", "else")

_ANTHROPIC_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def _composed_root(provider: str) -> Callable[[Sequence[Part]], Found]:
    def finds(parts: Sequence[Part]) -> Found:
        yield from (((), f"{word} at the top level") for word in ROOT_REFUSED[provider] if word in parts[0][1])

    return finds


def _without_properties(parts: Sequence[Part]) -> Found:
    if "properties" not in parts[0][1]:
        yield (), "a tool without `properties`"


def _property_names(parts: Sequence[Part]) -> Found:
    """Only names at the top level: Anthropic does not check deeper ones."""
    for name in parts[0][1].get("properties", {}):
        if not _ANTHROPIC_PROPERTY.fullmatch(name):
            yield ("properties", name), f"the property name {name[:80]!r}"


def _untyped_arrays(parts: Sequence[Part]) -> Found:
    yield from ((path, "an array without `items`") for path, part in parts if lacks_items(part))


def _listed_items(parts: Sequence[Part]) -> Found:
    yield from ((path, "a list of schemas as `items`") for path, part in parts if has_listed_items(part))


def _optional(parts: Sequence[Part]) -> Found:
    for path, part in parts:
        for name, one in members(part.get("properties")):
            if name not in part.get("required", ()) and not (isinstance(one, dict) and "default" in one):
                yield (*path, "properties", name), str(name)[:80]


def _keywords(wanted: Callable[[str], bool]) -> Callable[[Sequence[Part]], Found]:
    def finds(parts: Sequence[Part]) -> Found:
        yield from (((*path, word), f"`{word}`") for path, part in parts for word in part if wanted(word))

    return finds


def _nullable(parts: Sequence[Part]) -> Found:
    for path, part in parts:
        branches = [one for key in ("anyOf", "oneOf") for one in part.get(key, ()) if isinstance(one, dict)]
        if "null" in types(part) or any("null" in types(one) for one in branches):
            yield path, "null as a type"


def _other_choices(parts: Sequence[Part]) -> Found:
    for path, part in parts:
        if not all(isinstance(one, str) for one in part.get("enum", [part.get("const", "")])):
            yield path, "choices that are not strings"


def _open_objects(parts: Sequence[Part]) -> Found:
    for path, part in parts:
        if ("properties" in part or "object" in types(part)) and part.get("additionalProperties") is not False:
            yield path, "an object without `additionalProperties: false`"


def _not_required(parts: Sequence[Part]) -> Found:
    for path, part in parts:
        for name in part.get("properties", {}):
            if name not in part.get("required", ()):
                yield (*path, "properties", name), f"the optional property {name[:80]!r}"


_SPLIT = "describe the alternatives in the description and check them in the tool, or put them into one property"
_LEAVE = "leave strict mode off for this tool, or"
_ADD_ITEMS = 'say what is in it, e.g. "items": {"type": "string"}'

STRICT = (
    Rule("closed", _open_objects, REFUSED, f"in strict mode every object is closed; {_LEAVE} close it"),
    Rule("required", _not_required, REFUSED, f"in strict mode all are required; {_LEAVE} make it required and nullable"),
    Rule("keyword", _keywords(lambda word: word in _STRICT_LACKS), REFUSED,
         f"strict mode has no such keyword; {_LEAVE} drop it"),
    Rule("default", _keywords(lambda word: word == "default"), REPORTED,
         "strict mode requires every value, so the default is never used"),
)  # fmt: skip


def _root(provider: str) -> Rule:
    says = "sent as one object, the alternatives as text; the arguments are still validated against them"
    return Rule(ROOT, _composed_root(provider), REWRITTEN, says, _SPLIT)


_PLACES = Rule("places", _listed_items, REWRITTEN, "sent as `prefixItems`", "write it as `prefixItems`")

RULES: dict[str, tuple[Rule, ...]] = {
    "anthropic": (
        _root("anthropic"),
        _PLACES,
        Rule("names", _property_names, REFUSED, "at most 64 letters, digits, `_`, `.`, `-`; rename it"),
    ),
    "openai": (
        _root("openai"),
        _PLACES,
        Rule("items", _untyped_arrays, REWRITTEN, 'sent with `"items": {}`', _ADD_ITEMS),
        Rule("properties", _without_properties, REWRITTEN, 'sent with `"properties": {}`', 'write "properties": {}'),
    ),
    "gemini": (
        _root("gemini"),
        Rule("reference", _keywords(_GEMINI_REWRITES.__contains__), REWRITTEN, "sent written out, with `anyOf` and `enum`"),
        Rule("null", _nullable, REWRITTEN, "sent as `nullable`"),
        Rule("values", _other_choices, REWRITTEN, "sent as text in the description"),
        Rule("places", _listed_items, REWRITTEN, "sent as an array of any of them"),
        Rule("items", _untyped_arrays, REWRITTEN, "sent as an array of strings"),
        Rule("keyword", _keywords(lambda word: word not in _GEMINI_TAKES | _GEMINI_REWRITES), REWRITTEN,
             "not sent; the arguments are still validated against it"),
        Rule("optional", _optional, REPORTED,
             "optional without a default: this model tends to fill it in; give it a default"),
    ),
}  # fmt: skip
