"""A schema that a vendor does not accept as written is sent in another form."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.orchestration.dialects.arrays import add_items
from midwatch.orchestration.dialects.vendor_form import to_vendor_output, to_vendor_tool
from midwatch.schemas.message import UserMessage
from midwatch.schemas.model import ModelRequest
from midwatch.schemas.tools import ToolSpec
from midwatch.workers.providers.anthropic.provider import MessagesFormat
from midwatch.workers.providers.anthropic.request import write_count_request, write_messages_request
from midwatch.workers.providers.chat_completions.request import write_chat_request
from midwatch.workers.providers.responses.request import write_responses_request

ONE_OF = {
    "type": "object",
    "oneOf": [
        {"properties": {"url": {"type": "string"}}, "required": ["url"]},
        {"properties": {"rows": {"type": "array"}}, "required": ["rows"]},
    ],
}
ROWS = {"anthropic": {"type": "array"}, "openai": {"type": "array", "items": {}}}


def spec(schema: dict[str, Any], *, strict: bool = False) -> ToolSpec:
    return ToolSpec(name="attach", description="Attach a file.", input_schema=schema, strict=strict)


def request(schema: dict[str, Any], **more: Any) -> ModelRequest:
    said = (UserMessage(text="Hello.", group=1),)
    return ModelRequest(model="m-1", system="", messages=said, tools=(spec(schema),), **more)


def test_every_vendor_gets_one_object_with_a_note() -> None:
    """This holds for the tools in requests, and in the requests that count tokens."""
    described = "Attach a file.\n\nGive exactly one of: url; rows."
    asked = request(ONE_OF)
    for body in (write_messages_request(asked, "anthropic"), write_count_request(asked, "anthropic")):
        (tool,) = body["tools"]
        assert tool["description"] == described
        assert tool["input_schema"] == {
            "type": "object", "properties": {"url": {"type": "string"}, "rows": ROWS["anthropic"]},
        }  # fmt: skip
    (tool,) = write_responses_request(asked, "openai")["tools"]
    assert tool["description"] == described
    assert tool["parameters"]["properties"]["rows"] == ROWS["openai"]
    (tool,) = write_chat_request(asked, "gemini", gemini=True)["tools"]
    assert tool["function"]["description"] == described
    assert tool["function"]["parameters"]["properties"]["rows"] == {"type": "array", "items": {"type": "string"}}
    (tool,) = write_chat_request(asked, "openai-compatible", gemini=False)["tools"]
    assert tool["function"]["parameters"] == ONE_OF


def test_an_output_schema_is_sent_as_one_object() -> None:
    """The alternatives are in the schema's description. Anthropic's SDK would make an empty object of them."""
    asked = request({"type": "object"}, output_schema={**ONE_OF, "description": "The file."})
    sent = write_responses_request(asked, "openai")["text"]["format"]
    assert sent["schema"]["description"] == "The file. Give exactly one of: url; rows."
    assert "oneOf" not in sent["schema"]
    assert sent["strict"] is False
    asked_of_claude = MessagesFormat().write_request(asked)["output_config"]["format"]
    assert set(asked_of_claude["schema"]["properties"]) == {"url", "rows"}
    assert asked_of_claude["schema"]["description"].startswith("The file. Give exactly one of: url; rows.")
    assert to_vendor_output("openai-compatible", ONE_OF) is ONE_OF


@pytest.mark.parametrize("provider", ["anthropic", "openai", "gemini", "openai-compatible", "scripted"])
def test_an_accepted_schema_is_sent_unchanged(provider: str) -> None:
    """It is the same object, without a copy, for prompt caches and for speed."""
    tool = spec({"type": "object", "properties": {"a": {"type": "array", "items": {"anyOf": [{"const": 1}]}}}})
    assert to_vendor_tool(provider, tool) is tool


def test_a_tool_without_parameters_gets_properties_for_openai() -> None:
    """OpenAI accepts no object without `properties`. The other vendors do."""
    tool = spec({"type": "object"})
    assert to_vendor_tool("openai", tool).input_schema == {"type": "object", "properties": {}}
    assert to_vendor_tool("anthropic", tool) is to_vendor_tool("gemini", tool) is tool


def test_a_strict_schema_is_sent_unchanged() -> None:
    """The schema binds the model, and is checked when the agent is constructed. Gemini has no strict mode here."""
    tool = spec(ONE_OF, strict=True)
    assert to_vendor_tool("anthropic", tool) is to_vendor_tool("openai", tool) is tool
    assert "oneOf" not in to_vendor_tool("gemini", tool).input_schema


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        ({"type": "array"}, {"type": "array", "items": {}}),
        ({"type": ["array", "null"]}, {"type": ["array", "null"], "items": {}}),
        ({"type": "array", "prefixItems": [{}]}, {"type": "array", "prefixItems": [{}], "items": {}}),
        ({"type": "array", "items": [{"type": "number"}], "additionalItems": False},
         {"type": "array", "prefixItems": [{"type": "number"}], "items": False}),
        ({"type": "array", "items": []}, {"type": "array", "items": {}}),
        ({"items": [{"type": "array"}]}, {"prefixItems": [{"type": "array", "items": {}}], "items": {}}),
    ],
)  # fmt: skip
def test_arrays_get_items(part: dict[str, Any], sent: dict[str, Any]) -> None:
    """Tuples are written as in 2020-12, and an array without `items` gets `"items": {}`."""
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"x": {"anyOf": [part]}}}
    found = add_items(schema, untyped=True)
    assert found["properties"]["x"]["anyOf"] == [sent]
    assert ("$schema" in found) is not isinstance(part.get("items"), list)


def test_values_are_not_changed_like_schemas() -> None:
    """A default or an enum value that looks like an array's schema is not changed."""
    schema = {"properties": {"x": {"default": {"type": "array"}, "enum": [{"items": []}, {"type": "array"}]}}}
    assert add_items(schema, untyped=True) == schema
