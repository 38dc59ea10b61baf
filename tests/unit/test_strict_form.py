"""Strict forms of schemas, with which a provider constrains decoding."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest

from midwatch import tool
from midwatch.orchestration.dialects.strict import strict_form
from midwatch.workers.providers.responses.strict_schema import is_openai_strict

OBJECT = {"type": "object", "additionalProperties": False}


def form_of(properties: dict[str, object], required: list[str], provider: str = "openai") -> dict[str, object] | None:
    return strict_form(provider, {"type": "object", "properties": properties, "required": required})


def test_an_object_is_closed():
    """All objects inside it are closed, too."""
    inner = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    found = form_of({"p": inner, "ps": {"type": "array", "items": inner}}, ["p", "ps"])
    closed = {**inner, "additionalProperties": False}
    assert found == {
        **OBJECT,
        "properties": {"p": closed, "ps": {"type": "array", "items": closed}},
        "required": ["p", "ps"],
    }


def test_openai_requires_nullable_and_default_properties():
    """Such a property can be made required. Any other optional property has no strict form for OpenAI."""
    nullable = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    found = form_of({"q": {"type": "string"}, "n": {"type": "integer", "default": 3}, "who": nullable}, ["q"])
    assert found is not None
    assert found["required"] == ["q", "n", "who"]
    assert found["properties"]["n"] == {"type": "integer", "description": '("default":3)'}
    assert form_of({"q": {"type": "string"}, "n": {"type": "integer"}}, ["q"]) is None
    assert form_of({"q": {"type": "string"}, "n": {"type": "integer"}}, ["q"], "anthropic")["required"] == ["q"]


def test_unsupported_constraints_are_described():
    """They are added to the description. The author's schema still validates them."""
    name = {"type": "string", "minLength": 3, "pattern": "^W", "description": "An order"}
    assert form_of({"o": name}, ["o"])["properties"]["o"] == {
        "type": "string",
        "pattern": "^W",
        "description": 'An order ("minLength":3)',
    }
    found = form_of({"o": name, "n": {"type": "integer", "minimum": 1}}, ["o", "n"], "anthropic")
    assert found["properties"]["o"]["description"] == 'An order ("minLength":3,"pattern":"^W")'
    assert found["properties"]["n"] == {"type": "integer", "description": '("minimum":1)'}


@pytest.mark.parametrize(
    "one",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {},
        {"type": "array"},
        {"allOf": [{"type": "string"}]},
        {"enum": [{"a": 1}]},
        {"$ref": "#/properties/q"},
    ],
)
def test_free_form_schemas_have_no_strict_form(one):
    """These are maps, free-form objects, and schemas that allow any value."""
    assert form_of({"q": {"type": "string"}, "v": one}, ["q", "v"]) is None


def test_a_recursive_schema_has_one_at_openai_only():
    """Anthropic's grammars can't be recursive."""
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
        "required": ["next"],
    }
    schema = {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"], "$defs": {"n": node}}
    assert strict_form("openai", schema) is not None
    assert strict_form("anthropic", schema) is None


def test_other_providers_get_no_strict_form():
    """A compatible server may have no strict mode."""
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    assert strict_form("openai-compatible", schema) is None
    assert strict_form("gemini", schema) is None


def test_a_tool_from_a_function_has_a_strict_form():
    """Its schema comes from type hints, with a default and an optional parameter."""

    @tool
    def find(query: str, limit: int = 3, kinds: list[str] | None = None) -> str:
        """Find."""
        return query

    for provider in ("openai", "anthropic"):
        assert strict_form(provider, find.spec.input_schema) is not None


def test_strict_forms_of_recorded_schemas_follow_the_rules(data_dir):
    """Each strict form of a real server's tool follows the vendor's rules, and many tools have one."""
    with gzip.open(data_dir / "mcp_server_tools.json.gz", "rt") as file:
        schemas = [found["inputSchema"] for found in tools_in(json.load(file))]
    forms = [form for form in (strict_form("openai", schema) for schema in schemas) if form]
    assert all(is_openai_strict(form) for form in forms)
    assert len(forms) >= 0.1 * len(schemas)
    assert sum(strict_form("anthropic", schema) is not None for schema in schemas) >= len(forms)


def tools_in(found: object) -> Iterator[dict[str, object]]:
    """All entries with a name and an input schema."""
    if isinstance(found, dict):
        if isinstance(found.get("inputSchema"), dict):
            yield found
        else:
            yield from (one for value in found.values() for one in tools_in(value))
    elif isinstance(found, list):
        yield from (one for value in found for one in tools_in(value))
