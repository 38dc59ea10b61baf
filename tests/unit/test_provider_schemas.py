"""JSON Schemas for Gemini and for OpenAI's strict mode."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.workers.providers.chat_completions.gemini_schema import KEPT, MAX_PARTS, convert_to_gemini
from midwatch.workers.providers.responses.strict_schema import is_openai_strict

ACCEPTED = {*KEPT, "type", "properties", "required", "items", "enum", "anyOf"}


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": "string", "title": "T", "default": "x", "examples": ["y"]}, {"type": "string"}),
        ({"type": ["string", "null"]}, {"type": "string", "nullable": True}),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "title": "N"},
         {"type": "integer", "minimum": 1, "nullable": True}),
        ({"type": ["integer", "string"]}, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ({"oneOf": [{"type": "string"}, {"type": "number"}]}, {"anyOf": [{"type": "string"}, {"type": "number"}]}),
        ({"properties": {"a": {"type": "string"}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
         {"type": "object", "properties": {"a": {"type": "string"}}}),
        ({"const": "open"}, {"type": "string", "enum": ["open"]}),
        ({"type": "integer", "enum": [1, 2], "description": "Level."},
         {"type": "integer", "description": "Level. One of: 1, 2"}),
        ({"type": "array"}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}], "items": {}},
         {"type": "array", "items": {"type": "number"}}),
        ({"prefixItems": [{"type": "number"}, {"type": "string"}]},
         {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "string"}]}}),
        ({"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}}, {"required": ["a", "b"]}]},
         {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}),
        ({"$ref": "#/$defs/A", "description": "own", "$defs": {"A": {"type": "boolean", "description": "theirs"}}},
         {"type": "boolean", "description": "own"}),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, {"type": "object"}),
        ({"$ref": "#/$defs/gone"}, {"type": "string"}),
        ({"$ref": "https://elsewhere/schema"}, {"type": "string"}),
    ],
)  # fmt: skip
def test_gemini_gets_the_nearest_accepted_form(schema: dict[str, Any], sent: dict[str, Any]) -> None:
    """Each construct that the endpoint refuses is replaced by the nearest one that it accepts."""
    assert convert_to_gemini(schema) == sent


def test_recursive_schemas_end() -> None:
    """A schema that contains itself is written to a limited depth."""
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    sent = convert_to_gemini({"$ref": "#/$defs/tree", "$defs": {"tree": tree}})
    assert sent["properties"]["children"]["items"] == {"type": "object"}
    assert convert_to_gemini({"properties": {"a": {"$ref": "#"}}})["properties"] == {"a": {"type": "object"}}


def test_schema_that_grows_exponentially_is_cut() -> None:
    """Forty definitions that each refer to the next one twice are cut at the limit."""
    defs = {f"d{n}": {"properties": {k: {"$ref": f"#/$defs/d{n + 1}"} for k in "ab"}} for n in range(40)}
    assert len(str(convert_to_gemini({"$ref": "#/$defs/d0", "$defs": defs}))) < 60 * MAX_PARTS


def keywords(schema: Any) -> set[str]:
    found = set(schema)
    for name in ("items",):
        found |= keywords(schema[name]) if name in schema else set()
    for inner in [*schema.get("anyOf", ()), *schema.get("properties", {}).values()]:
        found |= keywords(inner)
    return found


schemas = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "object", "array", "null", ["string", "null"]]),
            "enum": st.lists(st.sampled_from(["a", 1, None]), min_size=1),
            "const": st.integers(),
            "format": st.just("uuid"),
            "default": st.none(),
            "$ref": st.sampled_from(["#", "#/$defs/x", "#/properties/a"]),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, max_size=2),
            "additionalProperties": st.booleans(),
            "required": st.lists(st.sampled_from("abc")),
        },
    ),
    max_leaves=8,
)


@given(schemas)
def test_only_accepted_keywords_are_sent(schema: dict[str, Any]) -> None:
    """For any schema, only accepted keywords are sent, and the schema has a type."""
    sent = convert_to_gemini(schema)
    assert keywords(sent) <= ACCEPTED
    assert "type" in sent or "anyOf" in sent


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {"type": "object"}}, "required": ["a"], "additionalProperties": False},
         False),
        ({"type": "object", "properties": {"a": {"enum": [{"type": "object"}]}}, "required": ["a"],
          "additionalProperties": False}, True),
        ({"$defs": {"A": {"type": "object", "properties": {"a": {}}}}}, False),
        ({"type": "string"}, True),
    ],
)  # fmt: skip
def test_strict_form_is_recognised(schema: dict[str, Any], strict: bool) -> None:
    """Strict mode accepts a schema only if each of its objects is closed and requires all of its properties."""
    assert is_openai_strict(schema) is strict
