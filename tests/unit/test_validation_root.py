"""The top level of a schema: without `type` it counts as an object, whichever keywords it has."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema_specifications import REGISTRY

from midwatch.orchestration.validation.root_object import KEYWORDS
from midwatch.validators import JSONSchemaValidator, SchemaRefused


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"minProperties": 1}, {"a": 1}, {}),
        ({"maxProperties": 1}, {"a": 1}, {"a": 1, "b": 2}),
        ({"propertyNames": {"maxLength": 2}}, {"ab": 1}, {"abc": 1}),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 2}, {"a": 1}),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"b": 1}, {"a": 1}),
        ({"properties": {"a": {}}, "unevaluatedProperties": False}, {"a": 1}, {"b": 1}),
        ({"patternProperties": {"^n_": {"type": "number"}}}, {"n_x": 1}, {"n_x": "1"}),
        ({"additionalProperties": {"type": "string"}}, {"a": ""}, {"a": 1}),
        ({"enum": [{"a": 1}]}, {"a": 1}, {"a": 2}),
        ({"const": {"a": 1}}, {"a": 1}, {}),
        (
            {"$dynamicAnchor": "n", "required": ["a"], "properties": {"a": {"$dynamicRef": "#n"}}},
            {"a": {"a": 1}},
            {"a": {}},
        ),
    ],
)
def test_a_keyword_of_objects_needs_no_type(schema: dict[str, Any], good: Any, bad: Any) -> None:
    """The schema is accepted and applied. Providers get it with `"type": "object"`."""
    validator = JSONSchemaValidator(schema)
    assert validator.schema["type"] == "object"
    assert validator.problems(good) == ()
    assert validator.problems(bad)


@pytest.mark.parametrize("word", ["contains", "items", "not", "if", "additionalItems", "unevaluatedItems"])
def test_a_keyword_of_another_type_has_no_effect(word: str) -> None:
    """As in the standard: `contains` says nothing about an object. A schema `{}` refuses none of them but for `not`."""
    schema = {word: {"type": "array"}, "minLength": 5, "maximum": 2, "prefixItems": [{}], "minItems": 9, "pattern": "x"}
    assert JSONSchemaValidator(schema).problems({"a": 1}) == ()


def test_every_keyword_of_both_drafts_is_known() -> None:
    """The list holds the keywords of the drafts' own metaschemas."""
    parts = ("core", "applicator", "unevaluated", "validation", "meta-data", "format-annotation", "content")
    latest = [REGISTRY.contents(f"https://json-schema.org/draft/2020-12/meta/{part}") for part in parts]
    assert len(latest) == len(Draft202012Validator.META_SCHEMA["allOf"])
    for metaschema in (Draft202012Validator.META_SCHEMA, Draft7Validator.META_SCHEMA, *latest):
        assert set(metaschema["properties"]) <= KEYWORDS


@pytest.mark.parametrize(
    ("schema", "hint"),
    [
        ({"order": {"type": "string"}}, 'put the properties under "properties"'),
        (
            {"propertys": {"a": {}}, "required": ["a"]},
            '"propertys" is not a keyword of JSON Schema, did you mean "properties"?',
        ),
        ({"minproperties": 1}, 'did you mean "minProperties"?'),
    ],
)
def test_a_map_of_properties_is_refused(schema: dict[str, Any], hint: str) -> None:
    """A name that no draft knows is a typo or a property. As a schema it would accept every call."""
    with pytest.raises(SchemaRefused) as refused:
        JSONSchemaValidator(schema)
    assert hint in str(refused.value)
    assert refused.value.reason == "object"


def test_names_of_extensions_need_no_type() -> None:
    """`x-…` is every tool's own name space, and OpenAPI adds some keywords."""
    assert JSONSchemaValidator({"properties": {}, "x-order": ["a"], "nullable": True}).schema["type"] == "object"


def test_a_list_of_types_with_object_is_an_object() -> None:
    """Arguments are always an object, so the other types can't occur."""
    validator = JSONSchemaValidator({"type": ["object", "null"], "required": ["a"]})
    assert validator.schema["type"] == "object"
    assert validator.problems({"a": 1}) == ()
    assert validator.problems(None)
    with pytest.raises(SchemaRefused, match=r'got \["array", "null"\]'):
        JSONSchemaValidator({"type": ["array", "null"]})


def test_a_reference_to_a_root_without_type_allows_any_value() -> None:
    """The added type is sent to providers, and not applied: it refused `{"foo": false}` of the standard's own suite."""
    validator = JSONSchemaValidator({"properties": {"foo": {"$ref": "#"}}, "additionalProperties": False})
    assert validator.problems({"foo": False}) == ()
    assert validator.problems({"foo": {"foo": {"foo": 1}}}) == ()
    (problem,) = validator.problems({"foo": {"bar": False}})
    assert problem.pointer == "/foo/bar"


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (True, "json"),
        ({"type": "array"}, "object"),
        ({"type": "object", "properties": {"x": {"type": "dict"}}}, "schema"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "draft"),
        ({"properties": {"x": {"$ref": "https://example.com"}}}, "reference"),
        ({"properties": {"x": {"pattern": "["}}}, "pattern"),
        ({"properties": {"x": {"type": "string", "default": None}}}, "default"),
        ({"description": "x" * 300_000}, "size"),
    ],
)
def test_a_refusal_has_a_typed_reason(schema: Any, reason: str) -> None:
    """Programs decide by `reason`, not by the text. It survives pickling."""
    with pytest.raises(SchemaRefused) as refused:
        JSONSchemaValidator(schema)
    copy = pickle.loads(pickle.dumps(refused.value))
    assert (copy.reason, str(copy)) == (reason, str(refused.value))
