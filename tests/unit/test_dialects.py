"""Schema differences of the providers are reported or refused when an agent is constructed."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch import Agent, tool
from midwatch.orchestration.dialects.rules import RULES, check
from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.tools import ToolSpec
from midwatch.validators import JSONSchemaValidator


def spec(schema: dict[str, Any], *, strict: bool = False) -> ToolSpec:
    return ToolSpec(name="probe", description="A probe.", input_schema={"type": "object", **schema}, strict=strict)


def one(part: Any, **more: Any) -> dict[str, Any]:
    return {"properties": {"x": part}, "required": ["x"], **more}


CLOSED = {"additionalProperties": False}


ELSEWHERE = {"$anchor": "there", "type": "string"}


@pytest.mark.parametrize(
    ("provider", "schema", "refusal"),
    [
        ("anthropic", {"properties": {"filter[id]": {}}}, "tool probe/properties/filter[id]: anthropic refuses the property"),
        ("anthropic", {"anyOf": [{"properties": {"a b": {}}}]}, "tool probe/properties/a b: anthropic refuses the property"),
        ("anthropic", {"anyOf": [{"type": "null"}, {"type": "string"}]}, "it can't be sent as one object: no object satisfies"),
        ("openai", {"allOf": [{}, {"type": "array"}]}, "tool probe: openai refuses allOf at the top level, and it can't be"),
        ("gemini", {"oneOf": [one({"$ref": "#there"})], "$defs": {"a": ELSEWHERE}}, 'the reference "#there" does not have the'),
    ],
)  # fmt: skip
def test_a_schema_that_the_vendor_refuses_is_refused_first(provider: str, schema: dict[str, Any], refusal: str) -> None:
    """One such tool would make every request fail. So the agent is refused before its first request, with place and advice."""
    with pytest.raises(ConfigError) as refused:
        check(provider, [spec(schema)])
    assert refusal in str(refused.value)


@pytest.mark.parametrize(
    ("provider", "schema", "rule", "where", "said"),
    [
        ("anthropic", {"anyOf": [{"required": ["a"]}]}, "root", "probe", "anthropic: anyOf at the top level: sent as one"),
        ("openai", {"oneOf": [{}], "not": {}}, "root", "probe", "openai: oneOf at the top level, not at the top level: sent"),
        ("gemini", {"allOf": [{}]}, "root", "probe", "gemini: allOf at the top level: sent as one object"),
        ("anthropic", one({"items": [{}]}), "places", "probe/properties/x", "a list of schemas as `items`: sent as `pref"),
        ("openai", one({"items": [{}]}), "places", "probe/properties/x", "a list of schemas as `items`: sent as `prefixItems`"),
        ("openai", one({"type": "array"}), "items", "probe/properties/x", "without `items`: sent with `\"items\": {}`"),
        ("openai", one({"type": ["string", "array"]}), "items", "probe/properties/x", "an array without `items`"),
        ("openai", one({"anyOf": [{"type": "array"}]}), "items", "probe/properties/x/anyOf/0", "an array without `items`"),
    ],
)  # fmt: skip
def test_a_rewritten_schema_is_reported(
    provider: str, schema: dict[str, Any], rule: str, where: str, said: str
) -> None:
    """Tools of foreign servers can't be changed by hand. The difference says what is sent instead."""
    (difference,) = [found for found in check(provider, [spec(schema)]) if found.rule not in ("optional", "keyword")][
        :1
    ]
    assert (difference.rule, difference.where, difference.rewritten) == (rule, where, True)
    assert said in difference.message


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
@pytest.mark.parametrize("schema", [{"anyOf": [{}]}, one({"type": "array", "items": [{}]})])
def test_nothing_is_rewritten_in_strict_mode(provider: str, schema: dict[str, Any]) -> None:
    """Strict mode binds the model to the sent schema, and a wider one would bind it less."""
    with pytest.raises(
        ConfigError, match="in strict mode it is sent as written; leave strict mode off for this tool, or"
    ):
        check(provider, [spec(schema, strict=True)])


def test_an_output_schema_is_checked_as_well() -> None:
    """Neither vendor accepts alternatives at the top level. Anthropic's SDK would reduce them to `{}`."""
    text = {"type": "string"}
    schema = {
        "type": "object",
        "anyOf": [{"properties": {name: text}, "required": [name]} for name in ("a", "b")],
    }
    for model in ("gpt-5-2025-08-07", "claude-sonnet-4-6"):
        (difference,) = Agent("clerk", model, "You help.", output_schema=schema).schema_differences
        assert (difference.rule, difference.where, difference.rewritten) == ("root", "output_schema", True)
    with pytest.raises(
        ConfigError, match=r"^output_schema: openai refuses allOf at the top level, and it can't be sent"
    ):
        Agent("clerk", "gpt-5-2025-08-07", "You help.", output_schema={"type": "object", "allOf": [False]})


@pytest.mark.parametrize(
    ("schema", "refusal"),
    [
        (one({"type": "string"}), "tool probe: openai refuses an object without `additionalProperties: false`"),
        ({"properties": {"a": {}}, **CLOSED}, 'refuses the optional property "a": in strict mode all are required'),
        (one({"allOf": [{}]}, **CLOSED), "tool probe/properties/x/allOf: openai refuses `allOf`"),
        (one({"type": "object"}, **CLOSED), "tool probe/properties/x: openai refuses an object without"),
    ],
)
def test_openai_strict_mode_has_its_own_rules(schema: dict[str, Any], refusal: str) -> None:
    """Without strict mode the same schema is accepted."""
    assert check("openai", [spec(schema)]) == ()
    with pytest.raises(ConfigError) as refused:
        check("openai", [spec(schema, strict=True)])
    assert refusal in str(refused.value)


def test_openai_strict_mode_reports_lost_defaults() -> None:
    """The documented form of an optional property is: required, with null allowed."""
    schema = one({"type": ["string", "null"], "default": None}, **CLOSED)
    (difference,) = check("openai", [spec(schema, strict=True)])
    assert (difference.rule, difference.where, difference.rewritten) == ("default", "probe/properties/x/default", False)


@pytest.mark.parametrize(
    ("schema", "rule", "where", "rewritten"),
    [
        (one({"const": "a"}), "reference", "probe/properties/x/const", True),
        (one({"$ref": "#/$defs/a"}, **{"$defs": {"a": {"type": "string"}}}), "reference", "probe/$defs", True),
        (one({"anyOf": [{"type": "string"}, {"type": "null"}]}), "null", "probe/properties/x", True),
        (one({"type": ["integer", "null"]}), "null", "probe/properties/x", True),
        (one({"enum": [1, 2]}), "values", "probe/properties/x", True),
        (one({"type": "array"}), "items", "probe/properties/x", True),
        (one({}, **CLOSED), "keyword", "probe/additionalProperties", True),
        (one({"type": "string", "format": "uuid"}), "keyword", "probe/properties/x/format", True),
        ({"properties": {"a": {"type": "string"}}}, "optional", "probe/properties/a", False),
    ],
)
def test_what_is_rewritten_for_gemini_is_reported(
    schema: dict[str, Any], rule: str, where: str, rewritten: bool
) -> None:
    """Each construct that its endpoint refuses is sent in another form, and reported."""
    found = [difference for difference in check("gemini", [spec(schema)]) if difference.rule == rule]
    assert [(difference.where, difference.rewritten) for difference in found] == [(where, rewritten)]
    assert found[0].message.startswith("gemini: ")


def test_a_property_name_is_not_a_keyword() -> None:
    """A tool may have an argument named `const`, and an enum may have an object with `anyOf`."""
    schema = {"properties": {"const": {"type": "string", "enum": ["a"]}}, "required": ["const"]}
    assert all(check(provider, [spec(schema)]) == () for provider in (*RULES, "openai-compatible", "scripted"))


def test_places_of_a_tool_are_one_difference() -> None:
    """Forty optional properties are one difference, with the first five names."""
    (difference,) = check("gemini", [spec({"properties": {f"p{n}": {"type": "string"} for n in range(40)}})])
    assert "p0, p1, p2, p3, p4 and 35 more: optional without a default" in difference.message


@tool
def look_up(order: str, page: int = 1) -> str:
    """Find an order."""
    return order


@tool("tagged", "Tag an order.", JSONSchemaValidator({"type": "object", "properties": {"tags": {"type": "array"}}}))
def tagged(**arguments: Any) -> str:
    """Tag."""
    return "ok"


@tool("tagged", "Tag an order.", JSONSchemaValidator({"type": "object", "properties": {"a b": {"type": "string"}}}))
def misnamed(**arguments: Any) -> str:
    """Tag."""
    return "ok"


def test_an_agent_holds_the_schema_differences() -> None:
    """They exist after construction, also those of fallback models. A refusal is an error."""
    differences = Agent("clerk", "gemini:gemini-2.5-pro", "You help.", tools=[look_up]).schema_differences
    assert [(difference.rule, difference.rewritten) for difference in differences] == [("keyword", True)]
    assert Agent("clerk", "claude-sonnet-4-6", "You help.", tools=[look_up, tagged]).schema_differences == ()
    both = Agent("clerk", "claude-sonnet-4-6", "Help.", tools=[tagged], fallback_models=["gpt-5-2025-08-07"])
    assert [(difference.rule, difference.where) for difference in both.schema_differences] == [
        ("items", "tagged/properties/tags")
    ]
    with pytest.raises(ConfigError, match=r"tool tagged/properties/a b: anthropic refuses the property name \"a b\""):
        Agent("clerk", "gpt-5-2025-08-07", "Help.", tools=[misnamed], fallback_models=["claude-sonnet-4-6"])


@pytest.mark.parametrize(
    ("part", "difference"),
    [
        (
            {"type": "string", "default": None},
            "schema /properties/x/default: expected string, got null; correct the default",
        ),
        ({"type": "integer", "minimum": 1, "default": 0}, "schema /properties/x/default: expected at least 1, got 0"),
        ({"$ref": "#/$defs/a"}, "schema /$defs/a/properties/b/default: expected boolean, got 1"),
        (
            {"items": {"enum": ["a"], "default": "b"}},
            'schema /properties/x/items/default: expected one of "a", got "b"',
        ),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "default": 3}, "expected string or null, got 3"),
    ],
)
def test_a_default_that_breaks_its_own_schema_is_refused(part: dict[str, Any], difference: str) -> None:
    """A default must be a value that the model could have given."""
    defs = {"a": {"properties": {"b": {"type": "boolean", "default": 1}}}}
    with pytest.raises(ConfigError) as refused:
        JSONSchemaValidator({"type": "object", "properties": {"x": part}, "$defs": defs if "$ref" in part else {}})
    assert difference in str(refused.value)


def test_a_default_may_be_anything_its_schema_allows() -> None:
    """Null is accepted where null is allowed, also through a reference, in both drafts."""
    for dialect in ("http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"):
        parts = {"x": {"type": ["string", "null"], "default": None}, "y": {"$ref": "#/definitions/n", "default": 2}}
        JSONSchemaValidator(
            {"$schema": dialect, "type": "object", "properties": parts, "definitions": {"n": {"type": "integer"}}}
        )
