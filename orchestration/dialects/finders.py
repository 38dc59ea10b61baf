"""Find the places of a schema that a rule is about. Each finder gets all subschemas, and yields places with a short text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from midwatch.orchestration.dialects.arrays import has_listed_items, lacks_items
from midwatch.orchestration.dialects.rule import Found
from midwatch.orchestration.dialects.values import fits_type, has_odd_choices, large_numbers
from midwatch.orchestration.dialects.vendor_form import ROOT_REFUSED
from midwatch.orchestration.validation.problems import show
from midwatch.orchestration.validation.subschemas import Part, members, types

Finder = Callable[[Sequence[Part]], Found]

_STRICT_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
STRICT_FORMATS = {"openai": _STRICT_FORMATS, "anthropic": _STRICT_FORMATS | {"uri"}}
"""Formats that a strict mode takes. Sources: OpenAI's guide to structured outputs; `anthropic.lib._parse._transform`."""


def composed_root(provider: str) -> Finder:
    """Alternatives at the top level."""

    def finds(parts: Sequence[Part]) -> Found:
        yield from (((), f"{word} at the top level") for word in ROOT_REFUSED[provider] if word in parts[0][1])

    return finds


def without_properties(parts: Sequence[Part]) -> Found:
    """A top level without `properties`."""
    if "properties" not in parts[0][1]:
        yield (), "a tool without `properties`"


def no_parameters(parts: Sequence[Part]) -> Found:
    """An object that can't have properties that the schema names."""
    if not parts[0][1].get("properties"):
        yield (), "a tool without parameters"


def property_names(pattern: str, *, at_top: bool) -> Finder:
    """Property names of another form."""
    wanted = re.compile(pattern)

    def finds(parts: Sequence[Part]) -> Found:
        for path, part in parts[:1] if at_top else parts:
            for name, _ in members(part.get("properties")):
                if not wanted.fullmatch(name):
                    yield (*path, "properties", name), f"the property name {show(name[:80])}"

    return finds


def untyped_arrays(parts: Sequence[Part]) -> Found:
    """Arrays without `items`."""
    yield from ((path, "an array without `items`") for path, part in parts if lacks_items(part))


def listed_items(parts: Sequence[Part]) -> Found:
    """Lists as `items`."""
    yield from ((path, "a list of schemas as `items`") for path, part in parts if has_listed_items(part))


def optional(parts: Sequence[Part]) -> Found:
    """Optional properties without a default."""
    for path, part in parts:
        for name, one in members(part.get("properties")):
            if name not in part.get("required", ()) and not (isinstance(one, dict) and "default" in one):
                yield (*path, "properties", name), str(name)[:80]


def keywords(wanted: Callable[[str], bool]) -> Finder:
    """Some keywords."""

    def finds(parts: Sequence[Part]) -> Found:
        yield from (((*path, word), f"`{word}`") for path, part in parts for word in part if wanted(word))

    return finds


def misplaced(parts: Sequence[Part]) -> Found:
    """Keywords that have no effect on the schema's type, such as `minLength` of an integer."""
    for path, part in parts:
        kinds = types(part)
        for word in part:
            if not fits_type(word, kinds):
                yield (*path, word), f"`{word}` of the type {show(part['type'])}"


def listed_types(parts: Sequence[Part]) -> Found:
    """Lists of types."""
    yield from (((*path, "type"), "a list of types") for path, part in parts if isinstance(part.get("type"), list))


def nullable(parts: Sequence[Part]) -> Found:
    """Schemas that allow null beside other types."""
    for path, part in parts:
        branches = [one for key in ("anyOf", "oneOf") for one in part.get(key, ()) if isinstance(one, dict)]
        if "null" in types(part) or any("null" in types(one) for one in branches):
            yield path, "null as a type"


def other_choices(parts: Sequence[Part]) -> Found:
    """Choices that are not strings, and the empty string."""
    for path, part in parts:
        choices = part.get("enum", [part.get("const", "a")])
        if not all(isinstance(one, str) for one in choices):
            yield path, "choices that are not strings"
        elif "" in choices:
            yield path, 'the choice ""'


def odd_choices(parts: Sequence[Part]) -> Found:
    """Choices that occur twice, or that the type excludes."""
    yield from ((path, "a choice twice, or of another type") for path, part in parts if has_odd_choices(part))


def no_choices(parts: Sequence[Part]) -> Found:
    """An `enum` without values."""
    yield from (((*path, "enum"), "an `enum` without values") for path, part in parts if part.get("enum") == [])


def nested_choices(parts: Sequence[Part]) -> Found:
    """Choices that are lists or objects."""
    for path, part in parts:
        if any(isinstance(one, (list, dict)) for one in part.get("enum", [part.get("const")])):
            yield path, "a list or an object as a choice"


def big_integers(parts: Sequence[Part]) -> Found:
    """Values beyond 64 bits."""
    yield from (
        ((*path, word), f"a number beyond 64 bits as `{word}`") for path, part in parts for word in large_numbers(part)
    )


def open_objects(parts: Sequence[Part]) -> Found:
    """Objects that allow other properties."""
    for path, part in parts:
        if ("properties" in part or "object" in types(part)) and part.get("additionalProperties") is not False:
            yield path, "an object without `additionalProperties: false`"


def not_required(parts: Sequence[Part]) -> Found:
    """Optional properties."""
    for path, part in parts:
        for name, _ in members(part.get("properties")):
            if name not in part.get("required", ()):
                yield (*path, "properties", name), f"the optional property {show(name[:80])}"


def formats(provider: str) -> Finder:
    """Formats that the provider's strict mode does not know."""

    def finds(parts: Sequence[Part]) -> Found:
        for path, part in parts:
            if "format" in part and part["format"] not in STRICT_FORMATS[provider]:
                yield (*path, "format"), f"the format {show(part['format'])}"

    return finds


def long_arrays(parts: Sequence[Part]) -> Found:
    """A `minItems` above 1."""
    yield from (
        ((*path, "minItems"), "`minItems` above 1") for path, part in parts if part.get("minItems", 0) not in (0, 1)
    )
