"""Strict forms: what a provider can constrain decoding by, never more than the author's schema takes once judged."""

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
    """And everything in it."""
    inner = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    found = form_of({"p": inner, "ps": {"type": "array", "items": inner}}, ["p", "ps"])
    closed = {**inner, "additionalProperties": False}
    assert found == {
        **OBJECT,
        "properties": {"p": closed, "ps": {"type": "array", "items": closed}},
        "required": ["p", "ps"],
    }


def test_openai_demands_what_may_be_null_or_has_a_default():
    """The value that it would have had can be said; any other optional property has no strict form there."""
    nullable = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    found = form_of({"q": {"type": "string"}, "n": {"type": "integer", "default": 3}, "who": nullable}, ["q"])
    assert found is not None
    assert found["required"] == ["q", "n", "who"]
    assert found["properties"]["n"] == {"type": "integer", "description": '("default":3)'}
    assert form_of({"q": {"type": "string"}, "n": {"type": "integer"}}, ["q"]) is None
    assert form_of({"q": {"type": "string"}, "n": {"type": "integer"}}, ["q"], "anthropic")["required"] == ["q"]


def test_what_is_not_constrained_is_said():
    """In the description; the author's schema judges it as always."""
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
def test_what_would_change_by_it_has_no_strict_form(one):
    """A map, a free-form object, anything at all."""
    assert form_of({"q": {"type": "string"}, "v": one}, ["q", "v"]) is None


def test_a_recursive_schema_has_one_at_openai_only():
    """Anthropic's grammars are finite."""
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
        "required": ["next"],
    }
    schema = {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"], "$defs": {"n": node}}
    assert strict_form("openai", schema) is not None
    assert strict_form("anthropic", schema) is None


def test_other_providers_are_never_asked():
    """Whether a compatible server has such a mode, nobody knows."""
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    assert strict_form("openai-compatible", schema) is None
    assert strict_form("gemini", schema) is None


def test_a_tool_made_of_a_function_has_one():
    """Of type hints, with a default and an option."""

    @tool
    def find(query: str, limit: int = 3, kinds: list[str] | None = None) -> str:
        """Find."""
        return query

    for provider in ("openai", "anthropic"):
        assert strict_form(provider, find.spec.input_schema) is not None


def test_recorded_schemas(data_dir):
    """Of real servers' tools: each strict form is what the vendor demands, and a good part of them has one."""
    with gzip.open(data_dir / "mcp_server_tools.json.gz", "rt") as file:
        schemas = [found["inputSchema"] for found in tools_in(json.load(file))]
    forms = [form for form in (strict_form("openai", schema) for schema in schemas) if form]
    assert all(is_openai_strict(form) for form in forms)
    assert len(forms) >= 0.1 * len(schemas)
    assert sum(strict_form("anthropic", schema) is not None for schema in schemas) >= len(forms)


def tools_in(found: object) -> Iterator[dict[str, object]]:
    """Whatever has a name and an input schema."""
    if isinstance(found, dict):
        if isinstance(found.get("inputSchema"), dict):
            yield found
        else:
            yield from (one for value in found.values() for one in tools_in(value))
    elif isinstance(found, list):
        yield from (one for value in found for one in tools_in(value))
