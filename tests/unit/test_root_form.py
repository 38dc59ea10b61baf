"""A schema with alternatives at its top level is rewritten as one object."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midwatch.orchestration.dialects.root import MAX_NOTE_CHARS, NotOneObject, to_one_object

A, B = {"a": {"type": "string"}}, {"b": {"type": "integer"}}
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def sent(schema: dict[str, Any]) -> dict[str, Any]:
    return to_one_object({"type": "object", **schema}).schema


def said(schema: dict[str, Any]) -> str:
    return to_one_object({"type": "object", **schema}).note


@pytest.mark.parametrize(
    ("schema", "properties", "required"),
    [
        ({"properties": {**A, **B}, "required": ["a"], "anyOf": [{"required": ["b"]}, {}]}, {**A, **B}, ["a"]),
        ({"oneOf": [{"properties": A, "required": ["a"]}, {"properties": B, "required": ["b"]}]}, {**A, **B}, None),
        ({"anyOf": [{"properties": A, "required": ["a", "b"]}, {"properties": B, "required": ["b"]}]}, {**A, **B}, ["b"]),
        ({"allOf": [{"properties": A, "required": ["a"]}, {"properties": B, "required": ["b"]}]}, {**A, **B}, ["a", "b"]),
        ({"anyOf": [{"properties": A}, {"properties": {"a": NUMBER}}]}, {"a": {"anyOf": [TEXT, NUMBER]}}, None),
        ({"oneOf": [{"properties": {"kind": {"const": "x"}}}, {"properties": {"kind": {"enum": ["y", "z"]}}}]},
         {"kind": {"type": "string", "enum": ["x", "y", "z"]}}, None),
        ({"properties": {"kind": TEXT}, "oneOf": [{"properties": {"kind": {"const": "x"}}}, {"properties": A}]},
         {"kind": TEXT, **A}, None),
        ({"properties": {"n": {"type": "integer", "title": "N"}}, "allOf": [{"properties": {"n": {"minimum": 1}}}]},
         {"n": {"type": "integer", "title": "N", "minimum": 1}}, None),
        ({"properties": {"n": {"maximum": 5}}, "allOf": [{"properties": {"n": {"maximum": 3}}}]},
         {"n": {"allOf": [{"maximum": 5}, {"maximum": 3}]}}, None),
        ({"anyOf": [{"properties": {"a": TEXT, "b": False}}, {"properties": {"a": False, "b": True}}]},
         {"a": TEXT, "b": {}}, None),
        ({"anyOf": [{"type": "null"}, False, {"type": ["object", "null"], "properties": A}]}, A, None),
        ({"properties": A, "not": {"required": ["b"]}, "if": {}, "then": {"required": ["b"]}, "enum": [{}]}, A, None),
        ({"allOf": [{"anyOf": [{"properties": A}]}, {"not": {}}, True]}, A, None),
    ],
)  # fmt: skip
def test_alternatives_become_one_object(schema: dict[str, Any], properties: dict[str, Any], required: Any) -> None:
    """It has all properties of all alternatives. It requires only what every call must give."""
    found = sent(schema)
    assert (found.pop("properties"), found.pop("required", None)) == (properties, required)
    assert found == {"type": "object"}


@pytest.mark.parametrize(
    ("schema", "closed", "names"),
    [
        ({"properties": A, "additionalProperties": False, "anyOf": [{"properties": B}, {}]}, True, "a"),
        ({"anyOf": [{"properties": A, "additionalProperties": False}, {"properties": B, "additionalProperties": False}]},
         True, "ab"),
        ({"anyOf": [{"properties": A, "additionalProperties": False}, {"properties": B}]}, False, "ab"),
        ({"allOf": [{"properties": A, "additionalProperties": False}, {"properties": B}]}, True, "a"),
        ({"allOf": [{"additionalProperties": False, "patternProperties": {"^x": {}}}, {"properties": B}]}, False, "b"),
        ({"unevaluatedProperties": False, "allOf": [{"properties": A}]}, False, "a"),
    ],
)  # fmt: skip
def test_it_is_closed_only_if_all_alternatives_are(schema: dict[str, Any], closed: bool, names: str) -> None:
    """`additionalProperties: false` knows only the properties of its own schema, so it is not always kept."""
    found = sent(schema)
    assert found.get("additionalProperties", True) is not closed
    assert "".join(found["properties"]) == names


def test_references_keep_their_meaning() -> None:
    """Used definitions are kept. A target inside an alternative is moved to the definitions."""
    shared, moved = {"type": "string", "minLength": 1}, {"type": "array", "items": {"$ref": "#/oneOf/0"}}
    schema = {
        "oneOf": [
            {"properties": {"a": moved, "u": {"$ref": "#/$defs/U"}}},
            {"$ref": "#/$defs/Only here"},
            {
                "properties": {
                    "c": {"$ref": "#/oneOf/0/properties/a"},
                    "d": {"$ref": "#/$defs/Only%20here/properties/b"},
                }
            },
        ],
        "$defs": {"U": shared, "Only here": {"properties": B}, "shared-1": {}},
    }
    found = sent(schema)
    definitions = found["$defs"]
    assert definitions["U"] == shared
    assert definitions["shared-2"]["properties"]["u"] == {"$ref": "#/$defs/U"}
    assert found["properties"] == {
        "a": {"type": "array", "items": {"$ref": "#/$defs/shared-2"}},
        "u": {"$ref": "#/$defs/U"},
        "b": NUMBER,
        "c": {"$ref": "#/$defs/shared-3"},
        "d": {"$ref": "#/$defs/Only%20here/properties/b"},
    }
    assert json.dumps(definitions["shared-3"]) == json.dumps(found["properties"]["a"])
    assert set(definitions) == {"U", "Only here", "shared-2", "shared-3"}
    assert "$defs" not in sent({"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"properties": A}}})


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "no object satisfies it"),
        ({"allOf": [{"properties": A}, {"type": "array"}]}, "no object satisfies it"),
        ({"anyOf": [{"$ref": "#name"}]}, 'the reference "#name" does not have the form #/...'),
        ({"anyOf": [{"$ref": "https://x/y"}]}, 'the reference "https://x/y" does not have the form #/...'),
        ({"anyOf": [{"$ref": "#/$defs/gone"}]}, 'the reference "#/$defs/gone" does not have the form #/...'),
        ({"anyOf": [{"$dynamicRef": "#x"}]}, 'the reference "#x" does not have the form #/...'),
        ({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}},
         'the reference "#/$defs/a" leads back to itself'),
    ],
)  # fmt: skip
def test_a_schema_that_is_no_object_is_refused(schema: dict[str, Any], why: str) -> None:
    """The message says why."""
    with pytest.raises(NotOneObject) as refused:
        sent(schema)
    assert str(refused.value) == why


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"oneOf": [{"required": ["a"]}, {"required": ["b", "c"]}]}, "Give exactly one of: a; b and c."),
        ({"required": ["a"], "anyOf": [{"required": ["a", "b"]}, {"required": ["c"]}]}, "Give at least one of: b; c."),
        ({"oneOf": [{"properties": {"kind": {"const": "x"}, **A}, "required": ["a"]},
                    {"properties": {"kind": {"enum": ["y"]}, **B}, "required": ["kind"]}]},
         'Give exactly one of: kind "x" and a; kind "y".'),
        ({"allOf": [{"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}], "oneOf": [{"required": ["c"]}, {"required": ["d"]}]},
         "Give at least one of: a; b. Give exactly one of: c; d."),
        ({"anyOf": [{"required": ["a"]}, {}]}, ""),
        ({"anyOf": [{"properties": A, "required": ["a"]}, {"properties": {"a": NUMBER}, "required": ["a"]}]}, ""),
        ({"anyOf": [{"required": ["a"]}]}, ""),
        ({"anyOf": [{"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"required": ["c"]}]}, ""),
    ],
)  # fmt: skip
def test_alternatives_are_described_in_a_note(schema: dict[str, Any], words: str) -> None:
    """One sentence describes what the object can't express. It is empty if the alternatives require nothing more."""
    assert said(schema) == words


def test_the_note_is_limited() -> None:
    """Every call pays for it."""
    words = said({"oneOf": [{"required": [f"name_{n}"]} for n in range(200)]})
    assert words.startswith("Give exactly one of: name_0; name_1;")
    assert words.endswith(" …")
    assert len(words) <= MAX_NOTE_CHARS


def test_the_authors_schema_is_not_changed() -> None:
    """It still validates the arguments. The sent schema is another object."""
    schema = {"type": "object", "anyOf": [{"$ref": "#/allOf/0"}], "allOf": [{"properties": A}], "$defs": {"x": {}}}
    before = json.dumps(schema)
    to_one_object(schema)
    assert json.dumps(schema) == before
