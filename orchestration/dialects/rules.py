"""What each provider demands of a tool's JSON Schema, checked when an agent is constructed, not at its first call.

One tool in a form that the vendor does not take makes it refuse every request of the agent. The author's schema is
never changed: it judges the arguments in any case. What a provider's endpoint does not take and its adapter rewrites
(`vendor_form`, `workers.providers.chat_completions.gemini_schema`) is reported as mended; what only makes the model guess
is reported; what the vendor answers with 400 and nothing can rewrite is refused here. Sources: the vendors' own error
texts, as quoted in public issues in 2025 and 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from midwatch.orchestration.dialects.arrays import has_listed_items, lacks_items
from midwatch.orchestration.dialects.root import NotOneObject, one_object
from midwatch.orchestration.dialects.vendor_form import ROOT_REFUSED, STRICT_MODES
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.validation.problems import pointer
from midwatch.orchestration.validation.subschemas import Part, Place, every_part, members, types
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.tools import ToolSpec

Found = Iterator[tuple[Place, str]]
"""Places that break a rule, with a word for each: a property, a keyword."""


@dataclass(frozen=True)
class Rule:
    """One thing that a provider does not take, or takes otherwise."""

    name: str
    finds: Callable[[Sequence[Part]], Found]
    effect: str
    says: str
    """What to do, or what is sent instead."""
    unless: str = ""
    """What to do where it can't be mended."""


@dataclass(frozen=True)
class SchemaDifference:
    """One thing that a provider takes otherwise than it is written."""

    rule: str
    where: str
    """`tool/properties/name`: the first place of this tool."""
    message: str
    mended: bool
    """The request is sent in a form that the provider takes."""


MENDED, TOLD, REFUSED = "mended", "told", "refused"

OUTPUT = "output_schema"

ROOT = "root"


def check_all(
    providers: Iterable[str], tools: Sequence[ToolSpec], output: JsonObject | None
) -> tuple[SchemaDifference, ...]:
    """What each of these providers takes otherwise. Raises ConfigError, as `check`."""
    return tuple(finding for one in dict.fromkeys(providers) for finding in check(one, tools, output))


def check(provider: str, tools: Iterable[ToolSpec], output: JsonObject | None = None) -> tuple[SchemaDifference, ...]:
    """What this provider takes otherwise. A provider whose rules are not known has no findings.

    Args:
        provider: the name before the colon of a model.
        tools: what is offered to the model.
        output: the schema of the final answer, which is rewritten by the same rules. What a vendor's own SDK does to it
            afterwards is not said.

    Raises:
        ConfigError: the vendor would refuse every request that offers this tool; the first such finding.

    """
    found = [finding for tool in tools for finding in _check_tool(provider, tool)]
    if output is not None:
        mended = [rule for rule in RULES.get(provider, ()) if rule.effect == MENDED]
        found += _check(provider, OUTPUT, output, mended)
    return tuple(found)


def _check_tool(provider: str, tool: ToolSpec) -> Iterator[SchemaDifference]:
    rules = RULES.get(provider, ())
    if tool.strict and provider in STRICT_MODES:
        rules = (*map(_as_written, rules), *(STRICT if provider == "openai" else ()))
    return _check(provider, tool.name, tool.input_schema, rules)


def _as_written(rule: Rule) -> Rule:
    """In strict mode nothing is rewritten."""
    advice = f"in strict mode it is sent as written; {_LEAVE} {rule.unless}"
    return Rule(rule.name, rule.finds, REFUSED, advice) if rule.effect == MENDED else rule


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
            try:  # what is sent instead has to satisfy the other rules
                found = list(every_part(one_object(schema).schema))
            except NotOneObject as error:
                raise ConfigError(f"{refused}, and it can't be sent as one object: {error}; {rule.unless}") from error
        yield SchemaDifference(rule.name, where, f"{provider}: {listed}: {rule.says}", mended=rule.effect == MENDED)


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


def _nameless(parts: Sequence[Part]) -> Found:
    if "properties" not in parts[0][1]:
        yield (), "a tool without `properties`"


def _property_names(parts: Sequence[Part]) -> Found:
    """At the top level only: deeper names are not looked at."""
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


def _valued(parts: Sequence[Part]) -> Found:
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


_SPLIT = "say the alternatives in the description and check them in the tool, or make one property of them"
_LEAVE = "leave strict mode off for this tool, or"
_SAY_ITEMS = 'say what is in it, e.g. "items": {"type": "string"}'

STRICT = (
    Rule("closed", _open_objects, REFUSED, f"in strict mode every object is closed; {_LEAVE} close it"),
    Rule("required", _not_required, REFUSED, f"in strict mode all are required; {_LEAVE} make it required and nullable"),
    Rule("keyword", _keywords(lambda word: word in _STRICT_LACKS), REFUSED,
         f"strict mode has no such keyword; {_LEAVE} drop it"),
    Rule("default", _keywords(lambda word: word == "default"), TOLD,
         "strict mode demands every value, so it is never used"),
)  # fmt: skip


def _root(provider: str) -> Rule:
    says = "sent as one object, the alternatives in words; the arguments are still judged by them"
    return Rule(ROOT, _composed_root(provider), MENDED, says, _SPLIT)


_PLACES = Rule("places", _listed_items, MENDED, "sent as `prefixItems`", "write it as `prefixItems`")

RULES: dict[str, tuple[Rule, ...]] = {
    "anthropic": (
        _root("anthropic"),
        _PLACES,
        Rule("names", _property_names, REFUSED, "at most 64 letters, digits, `_`, `.`, `-`; rename it"),
    ),
    "openai": (
        _root("openai"),
        _PLACES,
        Rule("items", _untyped_arrays, MENDED, 'sent with `"items": {}`', _SAY_ITEMS),
        Rule("properties", _nameless, MENDED, 'sent with `"properties": {}`', 'say "properties": {}'),
    ),
    "gemini": (
        _root("gemini"),
        Rule("reference", _keywords(_GEMINI_REWRITES.__contains__), MENDED, "sent written out, with `anyOf` and `enum`"),
        Rule("null", _nullable, MENDED, "sent as `nullable`"),
        Rule("values", _valued, MENDED, "sent as words of the description"),
        Rule("places", _listed_items, MENDED, "sent as an array of any of them"),
        Rule("items", _untyped_arrays, MENDED, "sent as an array of strings"),
        Rule("keyword", _keywords(lambda word: word not in _GEMINI_TAKES | _GEMINI_REWRITES), MENDED,
             "not sent; the arguments are still judged by it"),
        Rule("optional", _optional, TOLD,
             "optional without a default: this model tends to fill it in; give it a default"),
    ),
}  # fmt: skip
