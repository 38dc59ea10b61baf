"""Limits that the vendors publish: exceeding one is a finding or a refusal when the agent is declared."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midwatch import Agent
from midwatch.orchestration.dialects.limits import LIMITS, find_exceeded, fits_strict_limits, object_depth
from midwatch.orchestration.dialects.rules import RULES, STRICT, check
from midwatch.orchestration.dialects.strict import strict_form, to_strict_tools
from midwatch.orchestration.dialects.vendor_form import to_vendor_output, to_vendor_tool
from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.tools import ToolSpec
from midwatch.workers.providers.chat_completions.gemini_schema import convert_to_gemini
from midwatch.workers.providers.responses.strict_schema import is_openai_strict

BIG = 2**64
MODELS = {"openai": "gpt-5-2025-08-07", "anthropic": "claude-sonnet-4-6", "gemini": "gemini:gemini-2.5-pro"}


def spec(
    schema: dict[str, Any], *, strict: bool = False, name: str = "probe", description: str = "A probe."
) -> ToolSpec:
    return ToolSpec(name=name, description=description, input_schema={"type": "object", **schema}, strict=strict)


def one(part: Any, **more: Any) -> dict[str, Any]:
    return {"properties": {"x": part}, "required": ["x"], **more}


def closed(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def sent(provider: str, part: Any) -> Any:
    """One property, as this provider gets it."""
    schema = to_vendor_tool(provider, spec(one(part))).input_schema
    return (convert_to_gemini(schema) if provider == "gemini" else schema)["properties"]["x"]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
@pytest.mark.parametrize("word", ["maximum", "minimum", "exclusiveMaximum", "default", "multipleOf"])
def test_an_integer_beyond_64_bits_is_sent_as_text(provider: str, word: str) -> None:
    """Anthropic answers 400 to it ("int too big to convert"). The arguments are still validated against it."""
    part = {"type": "integer", word: BIG, "description": "A size."}
    text = f'A size. ("{word}":{BIG})'
    assert sent(provider, part) == {"type": "integer", "description": text}
    assert "numbers" in {found.rule for found in check(provider, [spec(one(part))]) if found.rewritten}
    assert sent(provider, {"type": "integer", "maximum": 2**63 - 1}) == {"type": "integer", "maximum": 2**63 - 1}


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
@pytest.mark.parametrize("part", [{"enum": [1, -BIG]}, {"const": BIG}, {"enum": [[BIG]], "type": "array", "items": {}}])
def test_a_choice_beyond_64_bits_is_sent_as_text(provider: str, part: dict[str, Any]) -> None:
    """No number of the sent schema is longer than 64 bits."""
    form = sent(provider, part)
    assert not {"enum", "const"} & set(form)
    assert form["description"].startswith("One of: ")
    assert str(BIG) in form["description"]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
def test_choices_are_sent_once_and_only_those_of_the_type(provider: str) -> None:
    """Null among the choices of a string is refused by several vendors, and can never be valid."""
    part = {"type": "string", "enum": ["a", None, "b", "a"]}
    assert sent(provider, part) == {"type": "string", "enum": ["a", "b"]}
    assert "choices" in {found.rule for found in check(provider, [spec(one(part))])}
    (found,) = [found for found in check("openai-compatible", [spec(one(part))]) if found.rule == "choices"]
    assert not found.rewritten
    assert sent(provider, {"type": "integer", "enum": [2, 2.0]})


@pytest.mark.parametrize(
    ("part", "form"),
    [
        ({"type": "string", "enum": ["", "a"]}, {"type": "string", "description": 'One of: "", "a"'}),
        ({"enum": [True, False]}, {"type": "boolean", "description": "One of: true, false"}),
        ({"enum": [0.5, 1]}, {"type": "number", "description": "One of: 0.5, 1"}),
        ({"type": "number", "enum": [1.5]}, {"type": "number", "description": "One of: 1.5"}),
        ({"type": ["string", "null"], "enum": ["a", None]}, {"type": "string", "enum": ["a"], "nullable": True}),
        ({"enum": ["a", None]}, {"type": "string", "enum": ["a"], "nullable": True}),
        ({"enum": ["a", 1]}, {"anyOf": [{"type": "integer", "description": "One of: 1"}, {"type": "string", "enum": ["a"]}]}),
        ({"type": ["integer", "null"], "enum": [1, None], "description": "Level."},
         {"type": "integer", "description": "Level. One of: 1", "nullable": True}),
        ({"type": "integer", "minLength": 3, "pattern": "a", "minItems": 1}, {"type": "integer"}),
        ({"type": "object", "pattern": "a", "items": {}}, {"type": "object"}),
        ({"type": "string", "properties": {"a": {}}, "required": ["a"]}, {"type": "string"}),
        ({"type": ["string", "integer"], "minLength": 2, "minimum": 1},
         {"anyOf": [{"type": "string", "minLength": 2}, {"type": "integer", "minimum": 1}]}),
        ({"anyOf": [{"type": "string"}, {"type": "number"}], "maxLength": 4.0},
         {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "number"}]}),
        ({"type": "object", "properties": {}}, {"type": "object"}),
        ({"minimum": 1}, {"type": "number", "minimum": 1}),
        ({"const": None}, {"type": "null", "description": "One of: null"}),
    ],
)  # fmt: skip
def test_gemini_gets_only_what_the_written_type_may_have(part: dict[str, Any], form: dict[str, Any]) -> None:
    """It takes an `enum` of non-empty strings only, and no keyword that the type does not have. Words are JSON's."""
    assert sent("gemini", part) == form


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "object", "properties": {}}])
def test_empty_objects_are_sent_as_each_vendor_wants_them(schema: dict[str, Any]) -> None:
    """OpenAI wants `properties`, and Gemini refuses an object without a property: the function has no schema then."""
    from midwatch.schemas.message import UserMessage
    from midwatch.schemas.model import ModelRequest
    from midwatch.workers.providers.chat_completions.request import write_chat_request

    asked = ModelRequest(model="m", system="", messages=(UserMessage(text="Hello.", group=1),), tools=(spec(schema),))
    (tool,) = write_chat_request(asked, "gemini", gemini=True)["tools"]
    assert tool["function"] == {"name": "probe", "description": "A probe."}
    (tool,) = write_chat_request(asked, "openai-compatible", gemini=False)["tools"]
    assert tool["function"]["parameters"] == schema
    assert to_vendor_tool("openai", spec(schema)).input_schema == {"type": "object", "properties": {}}
    assert "parameters" in {found.rule for found in check("gemini", [spec(schema)])}


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_more_than_128_tools_are_refused(provider: str) -> None:
    """Both vendors refuse every request with more."""
    tools = [spec({"properties": {"a": {"type": "string"}}}, name=f"t{n}") for n in range(129)]
    with pytest.raises(ConfigError, match=f"tools: {provider} refuses 129 tools, at most 128"):
        check(provider, tools)
    assert not [found for found in check(provider, tools[:128]) if found.rule == "tools"]
    assert [found.rule for found in check("openai-compatible", tools)] == ["tools"]
    assert check("anthropic", tools) == ()


def test_the_runtimes_own_tools_are_a_finding() -> None:
    """A request may also offer `read_result` and `recall`. With 127 tools of its own, an agent exceeds the limit later."""
    from midwatch.orchestration.dialects.rules import check_all

    tools = [spec({"properties": {"a": {"type": "string"}}}, name=f"t{n}") for n in range(129)]
    with pytest.raises(ConfigError, match="tools: openai refuses 129 tools and 2 of the runtime, at most 128"):
        check_all(["openai"], tools, None)
    for count in (127, 128):
        (found,) = check_all(["openai"], tools[:count], None)
        assert (found.rule, found.where, found.rewritten) == ("tools", "tools", False)
    assert check_all(["openai"], tools[:126], None) == ()


def test_a_long_description_is_a_finding() -> None:
    """OpenAI's older models and some servers refuse more than 1,024 characters."""
    long = spec({"properties": {}}, description="x" * 1_025)
    for provider in ("openai", "openai-compatible"):
        (found,) = check(provider, [long])
        assert (found.rule, found.where, found.rewritten) == ("description", "probe", False)
        assert "1,025 characters in the tool's description, at most 1,024" in found.message
    assert check("anthropic", [long]) == ()


@pytest.mark.parametrize(
    ("schema", "rule", "where"),
    [
        (one({"type": ["string", "null"]}), "types", "probe/properties/x/type"),
        (one({"type": "array"}), "items", "probe/properties/x"),
        ({}, "properties", "probe"),
        (one({"maximum": BIG}), "numbers", "probe/properties/x/maximum"),
    ],
)
def test_what_some_servers_refuse_is_a_finding(schema: dict[str, Any], rule: str, where: str) -> None:
    """Other servers get every schema as written, because they differ too much for rules."""
    tool = spec(schema)
    (found,) = check("openai-compatible", [tool])
    assert (found.rule, found.where, found.rewritten) == (rule, where, False)
    assert to_vendor_tool("openai-compatible", tool) is tool


def test_an_enum_without_values_is_refused() -> None:
    """No value satisfies it."""
    for provider in ("openai", "gemini"):
        with pytest.raises(ConfigError, match="an `enum` without values: no value satisfies it"):
            check(provider, [spec(one({"enum": []}))])


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = closed({"in": schema})
    return schema


@pytest.mark.parametrize(
    ("schema", "limit"),
    [
        (deep(11), "depth"),
        (closed({f"p{n}": {"type": "string"} for n in range(5_001)}), "size"),
        (closed({"x": {"type": "string", "enum": [str(n) for n in range(1_001)]}}), "enum"),
        (closed({"x": {"type": "string", "enum": [f"{n:0>100}" for n in range(251)]}}), "enum text"),
        (closed({f"p{n:0>130}": {"type": "string"} for n in range(1_000)}), "text"),
    ],
)
def test_limits_of_openais_structured_outputs(schema: dict[str, Any], limit: str) -> None:
    """A strict tool that exceeds a limit is refused. A schema that exceeds one has no strict form, so answers are not
    strict."""
    with pytest.raises(ConfigError, match="strict schema, at most"):
        check("openai", [spec(schema, strict=True)])
    assert limit in {found.limit.name for found in find_exceeded("openai", [spec(schema, strict=True)])}
    assert strict_form("openai", schema) is None
    assert not is_openai_strict(schema)
    assert check("openai", [spec(schema)]) == ()


def test_depth_counts_objects_and_lists() -> None:
    """Ten levels are allowed. A definition counts by itself."""
    assert object_depth(deep(10)) == 10
    assert is_openai_strict(deep(10))
    assert object_depth({"type": "array", "items": {"type": "object"}, "$defs": {"a": deep(3)}}) == 3


def test_limits_of_anthropics_strict_mode_count_over_the_request() -> None:
    """20 strict tools, 24 optional properties, 16 alternatives."""
    text = {"type": "string"}
    few = [spec(closed({"a": text}), strict=True, name=f"t{n}") for n in range(21)]
    with pytest.raises(ConfigError, match="tools: anthropic refuses 21 strict tools, at most 20"):
        check("anthropic", few)
    assert check("anthropic", few[:20]) == ()
    loose = [spec(closed({f"p{n}": text for n in range(13)}, []), strict=True, name=name) for name in "ab"]
    with pytest.raises(ConfigError, match="26 optional properties in the strict schemas of a request, at most 24"):
        check("anthropic", loose)
    assert check("anthropic", loose[:1]) == ()
    unions = closed({f"p{n}": {"anyOf": [text, {"type": "null"}]} for n in range(17)})
    with pytest.raises(ConfigError, match="17 alternatives in the strict schemas"):
        check("anthropic", [spec(unions, strict=True)])


def test_the_ladder_offers_as_many_strict_tools_as_the_vendor_takes() -> None:
    """The limits of Anthropic hold for all tools of a request together."""
    specs = [spec(closed({f"p{n}": {"type": "string"} for n in range(10)}, []), name=name) for name in "abc"]
    offered = to_strict_tools("anthropic", specs, {"a", "b", "c"})
    assert [tool.strict for tool in offered] == [True, True, False]
    assert offered[2] is specs[2]
    assert fits_strict_limits("anthropic", offered)


@pytest.mark.parametrize(
    ("provider", "part"),
    [
        ("openai", {"type": "string", "minLength": 1}),
        ("openai", {"type": "integer", "minLength": 1}),
        ("openai", {"type": "integer", "pattern": "a"}),
        ("openai", closed({}) | {"pattern": "a"}),
        ("openai", {"type": "string", "format": "uri"}),
        ("openai", {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        ("openai", {"type": "string", "minimum": 1}),
        ("anthropic", {"type": "integer", "minimum": 1}),
        ("anthropic", {"type": "string", "maxLength": 1}),
        ("anthropic", {"type": "array", "items": {"type": "string"}, "minItems": 2}),
        ("anthropic", {"type": "string", "format": "iri"}),
        ("anthropic", {"enum": [["a"]]}),
        ("anthropic", {"type": "object", "properties": {}}),
    ],
)
def test_a_keyword_that_strict_mode_lacks_is_refused_or_described(provider: str, part: dict[str, Any]) -> None:
    """The tool as written is refused. The strict form says it in the description, and breaks no rule."""
    schema = closed({"x": part})
    with pytest.raises(ConfigError, match="leave strict mode off for this tool"):
        check(provider, [spec(schema, strict=True)])
    form = strict_form(provider, schema)
    if form is not None:
        assert check(provider, [spec(form, strict=True)]) == ()
        assert to_vendor_tool(provider, spec(schema)).strict is False


def test_an_answer_is_strict_at_openai_if_a_form_fits() -> None:
    """A closed schema with `minLength` was sent in strict mode, which refuses the keyword."""
    from midwatch.orchestration.dialects.answer import answer_form

    schema = closed({"x": {"type": "string", "minLength": 3}})
    assert not is_openai_strict(schema)
    answer = answer_form("openai", schema)
    assert answer.strict
    assert answer.schema == closed({"x": {"type": "string", "description": '("minLength":3)'}})
    assert not answer_form("openai", {"type": "object", "properties": {"x": {"type": "string"}}}).strict


def test_an_answer_at_anthropic_is_written_in_json() -> None:
    """Its SDK writes `uniqueItems: True` into the description, and fails on a list of types."""
    from midwatch.orchestration.dialects.answer import answer_form

    part = {"type": ["array", "null"], "items": {"type": "string"}, "uniqueItems": True}
    answer = answer_form(
        "anthropic", to_vendor_output("anthropic", closed({"x": part, "y": {"type": "integer", "minimum": 0}}))
    )
    assert answer.schema["properties"] == {
        "x": {"type": ["array", "null"], "items": {"type": "string"}, "description": '("uniqueItems":true)'},
        "y": {"type": "integer", "description": '("minimum":0)'},
    }
    assert "True" not in json.dumps(answer.schema)


@pytest.mark.parametrize(
    ("schema", "refusal"),
    [
        (closed({"x": {}}), "anthropic refuses it: each part needs a type"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/t"}}, "$defs": {"t": closed({"a": {"$ref": "#/$defs/t"}})}},
         "no definition may contain itself"),
        (closed({f"p{n}": {"type": "string"} for n in range(25)}, []), "refuses 25 optional properties"),
    ],
)  # fmt: skip
def test_an_answer_that_anthropic_refuses_is_refused_at_declaration(schema: dict[str, Any], refusal: str) -> None:
    """Every call of the agent would fail."""
    with pytest.raises(ConfigError, match=r"^output_schema: ") as refused:
        Agent("clerk", MODELS["anthropic"], "You help.", output_schema=schema)
    assert refusal in str(refused.value)
    Agent("clerk", MODELS["openai"], "You help.", output_schema=schema)


def test_an_answer_with_a_map_is_a_finding_at_anthropic() -> None:
    """It closes every object, so a map can only be empty."""
    schema = closed({"counts": {"type": "object", "additionalProperties": {"type": "integer"}}})
    (found,) = Agent("clerk", MODELS["anthropic"], "You help.", output_schema=schema).schema_differences
    assert (found.rule, found.where, found.rewritten) == ("answer", "output_schema", False)


def test_every_rule_and_limit_has_a_source() -> None:
    """The page `docs/vendors.md` shows them."""
    rows = [row for table in (RULES, STRICT) for rules in table.values() for row in rules]
    assert all(row.source and row.about for row in rows)
    assert all(limit.source.startswith("https://") for limits in LIMITS.values() for limit in limits)
