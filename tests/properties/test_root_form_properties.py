"""The sent schema accepts every call that the author's schema accepts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from midwatch.orchestration.dialects.root import NotOneObject, to_one_object
from midwatch.orchestration.dialects.rules import RULES, check
from midwatch.orchestration.dialects.vendor_form import ROOT_REFUSED, to_vendor_tool
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.validation.subschemas import resolve_reference
from midwatch.schemas.tools import ToolSpec
from midwatch.validators import JSONSchemaValidator

Schema = Any
NAMES = st.sampled_from(["a", "b", "c", "kind"])
REFERENCES = st.sampled_from(["#/$defs/d", "#/$defs/e", "#/properties/a", "#/anyOf/0/properties/b"])

forms = st.one_of(
    st.sampled_from(["string", "integer", "array"]).map(lambda kind: {"type": kind}),
    st.sampled_from(["x", "y", 1]).map(lambda value: {"const": value}),
    st.fixed_dictionaries({"type": st.just("integer"), "minimum": st.integers(0, 2), "title": st.just("N")}),
    REFERENCES.map(lambda reference: {"$ref": reference}),
    st.booleans(),
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", ["object", "null"]]),
        "properties": st.dictionaries(NAMES, forms, max_size=3),
        "required": st.lists(NAMES, unique=True, max_size=2),
        "additionalProperties": st.booleans(),
        "patternProperties": st.just({"^c": {"type": "integer"}}),
        "unevaluatedProperties": st.booleans(),
        "minProperties": st.integers(0, 1),
    },
)
bare_objects = objects.map(lambda part: {key: value for key, value in part.items() if key != "type"})
impossible = st.sampled_from([False, {"type": "string"}, True])
branches = st.recursive(
    objects | objects | objects | st.just({"$ref": "#/$defs/d"}) | impossible,
    lambda inner: st.builds(
        lambda own, composed, judged: {**own, **composed, **judged},
        objects,
        st.dictionaries(st.sampled_from(["anyOf", "oneOf", "allOf"]), st.lists(inner, min_size=1, max_size=3), max_size=2),
        st.dictionaries(st.sampled_from(["not", "if", "then", "else"]), inner, max_size=1),
    ),
    max_leaves=6,
)  # fmt: skip
roots = st.builds(
    lambda own, composed, judged, a, d, e: {
        "properties": {"a": a}, **own, **composed, **judged, "type": "object", "$defs": {"d": d, "e": e},
    },
    bare_objects,
    st.dictionaries(st.sampled_from(["anyOf", "oneOf", "allOf"]), st.lists(branches, min_size=1, max_size=3), min_size=1),
    st.dictionaries(st.sampled_from(["not", "if", "then"]), objects, max_size=1),
    forms,
    objects,
    objects,
)  # fmt: skip
CALLS = [
    {name: value for name, value in zip(("a", "b", "kind", "c"), given_values, strict=True) if value is not None}
    for given_values in itertools.product((None, 1, "x"), (None, 0, "x"), (None, "x", "y"), (None, 1, []))
]


def holds(part: Schema, root: Schema, call: dict[str, Any]) -> bool:
    """Return whether a part of the author's schema accepts the call, at its place."""
    return bool(Draft202012Validator(root).evolve(schema=part).is_valid(call))


def named(part: Schema, root: Schema) -> set[str]:
    """Return every property that a part or one of its alternatives names."""
    if not isinstance(part, dict):
        return set()
    inner = [one for key in ("allOf", "anyOf", "oneOf") for one in part.get(key, ())]
    inner += [resolve_reference(root, part["$ref"])] if "$ref" in part else []
    return set(part.get("properties", {})).union(*(named(one, root) for one in inner))


def plain(part: Schema, root: Schema, call: dict[str, Any], others: Iterable[str] = ()) -> bool:
    """Return whether the call avoids properties that only another alternative names."""
    if not isinstance(part, dict):
        return True
    known = set(part.get("properties", {})) | set(others)
    parts = [*part.get("allOf", ()), *([resolve_reference(root, part["$ref"])] if "$ref" in part else [])]
    for one in parts:
        known |= set(one.get("properties", {})) if isinstance(one, dict) else set()
    for key in ("anyOf", "oneOf"):
        alternatives = part.get(key)
        if alternatives is None:
            continue
        apart = set().union(*(named(one, root) for one in alternatives)) - known
        if not any(
            holds(one, root, call) and not (apart - named(one, root)) & set(call) and plain(one, root, call, known)
            for one in alternatives
        ):
            return False
    return all(plain(one, root, call, known) for one in parts)


@given(roots)
def test_the_sent_schema_accepts_all_calls_of_the_author(root: Schema) -> None:
    """This is tested for any composition at the top level, with each of the calls above."""
    try:
        JSONSchemaValidator(root)
        sent = to_one_object(root).schema
    except (ConfigError, NotOneObject):
        return  # refused with a reason
    for call in CALLS:
        if holds(root, root, call) and plain(root, root, call):
            assert holds(sent, sent, call), (sent, call)


@given(roots)
def test_the_sent_schema_breaks_no_rule_of_the_vendor(root: Schema) -> None:
    """A rewritten schema satisfies the same rules."""
    tool = ToolSpec(name="probe", description="A probe.", input_schema=root)
    for provider in ROOT_REFUSED:
        try:
            JSONSchemaValidator(root)
            check(provider, [tool])
        except ConfigError:
            continue
        sent = to_vendor_tool(provider, tool)
        assert not set(ROOT_REFUSED[provider]) & set(sent.input_schema)
        if provider != "gemini":  # its adapter satisfies the other rules
            assert check(provider, [sent]) == ()
            JSONSchemaValidator(sent.input_schema)


def test_every_provider_with_rules_has_a_form() -> None:
    """Rules and forms cover the same providers."""
    assert {name for name, rules in RULES.items() if rules[0].name == "root"} == set(ROOT_REFUSED)


@pytest.mark.parametrize("call", [{"a": 5, "b": "x"}])
def test_a_property_of_another_alternative_has_its_type(call: dict[str, Any]) -> None:
    """This is the one exception: an open alternative strictly allows any value, but the sent schema gives the type."""
    root = {
        "type": "object",
        "anyOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"required": ["b"]}],
    }
    assert JSONSchemaValidator(root).problems(call) == ()
    assert not plain(root, root, call)
    assert JSONSchemaValidator(to_one_object(root).schema).problems(call)
