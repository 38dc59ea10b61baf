"""Toolbox: only a checked call runs, and every refusal tells the model what to do."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from midwatch import tool
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.toolbox import CheckedCall, RefusedCall, Toolbox, idempotency_key
from midwatch.schemas.message import ToolCall
from midwatch.validators import JSONSchemaValidator


@tool
def search_tickets(query: str, limit: int = 20) -> list[str]:
    """Search support tickets."""
    return [query] * limit


@tool
def list_queues() -> list[str]:
    """List the queues."""
    return []


@tool
def book(day: date) -> str:
    """Book a day."""
    return day.isoformat()


BOX = Toolbox([search_tickets, list_queues, book])


def check(name: str, raw: str, box: Toolbox = BOX) -> CheckedCall | RefusedCall:
    return box.check(ToolCall(id="call_1", name=name, raw_arguments=raw))


def refused(name: str, raw: str, box: Toolbox = BOX) -> RefusedCall:
    found = check(name, raw, box)
    assert isinstance(found, RefusedCall)
    return found


def test_a_valid_call_passes_with_its_arguments_as_json() -> None:
    """The arguments stay unconverted JSON, so that they can be hashed, shown and edited."""
    found = check("book", '{"day": "2026-11-24"}')
    assert isinstance(found, CheckedCall)
    assert found.tool is book
    assert found.arguments == {"day": "2026-11-24"}


def test_an_empty_text_calls_a_tool_without_input_only() -> None:
    """`""` means `{}` for `list_queues`. It is refused for `search_tickets`, with the required properties in the message."""
    assert isinstance(check("list_queues", ""), CheckedCall)
    answer = refused("search_tickets", "")
    assert answer.kind == "bad_json"
    assert "Required: query (string). Optional: limit (integer)." in answer.message


def test_an_unknown_tool_is_answered_with_the_nearest_names() -> None:
    """Models misspell and invent names. The message lists the existing tools."""
    answer = refused("search_ticket", "{}")
    assert answer.kind == "unknown_tool"
    assert "Did you mean search_tickets?" in answer.message
    assert "The tools are: search_tickets, list_queues, book." in answer.message
    assert "There are no tools" in refused("x", "{}", Toolbox([])).message


def test_the_list_of_tool_names_is_limited() -> None:
    """With 500 tools and a name of 10,000 characters, the message stays short."""
    many = Toolbox([tool(f"tool_{n}", "Does it.")(list_queues.function) for n in range(500)])
    answer = refused("z" * 10_000, "{}", many)
    assert "and 460 more" in answer.message
    assert len(answer.message) < 1_000


def test_invalid_arguments_say_that_nothing_ran() -> None:
    """The model must know that no effect has happened."""
    answer = refused("search_tickets", '{"query": 5, "limt": 3}')
    assert answer.kind == "schema"
    assert answer.message.splitlines() == [
        "search_tickets was not run: its arguments are not valid.",
        '/limt: expected no such property, did you mean "limit"?; got 3',
        "/query: expected string; got 5",
        "Required: query (string). Optional: limit (integer).",
    ]


def test_a_value_that_can_not_be_converted_is_a_schema_problem() -> None:
    """A text that is not a date passes the schema, but never reaches the function."""
    loose = JSONSchemaValidator({"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]})
    answer = refused("book", '{"day": "soon"}', Toolbox([tool("book", "Book.", loose)(book.function)]))
    assert answer.kind == "schema"
    assert "/day: expected" in answer.message


def test_an_open_schema_does_not_let_unknown_arguments_through() -> None:
    """A schema without `additionalProperties: false` accepts names that the function does not have."""
    open_schema = JSONSchemaValidator(
        {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    )
    box = Toolbox([tool("search", "Search.", open_schema)(search_tickets.function)])
    assert refused("search", '{"query": "a", "page": 2}', box).kind == "schema"
    anything = Toolbox([tool("search", "Search.", open_schema)(lambda **arguments: "")])
    assert isinstance(check("search", '{"query": "a", "page": 2}', anything), CheckedCall)


def test_a_required_argument_behind_any_of_is_checked_at_the_call() -> None:
    """Requirements behind `anyOf` can't be checked at declaration, so each call is checked."""
    either = JSONSchemaValidator({"type": "object", "anyOf": [{"required": ["query"]}, {"required": ["id"]}]})
    box = Toolbox([tool("search", "Search.", either)(search_tickets.function)])
    assert "/query: expected a value (it is required)" in refused("search", '{"id": 1}', box).message


def test_specs_keep_their_order() -> None:
    """They keep the order of declaration, since every change of it misses the prompt cache."""
    assert [spec.name for spec in BOX.specs] == ["search_tickets", "list_queues", "book"]
    assert BOX.get("book") is book
    assert BOX.get("nope") is None


def test_two_tools_of_one_name_are_refused() -> None:
    """A model could not tell them apart."""
    with pytest.raises(ConfigError, match="two tools are named 'book'"):
        Toolbox([book, book])
    with pytest.raises(ConfigError, match="a tool of the runtime"):
        Toolbox([tool("read_result", "Reads.")(list_queues.function)])


def test_a_plain_function_is_not_a_tool() -> None:
    """This is the most likely mistake. The message says what to do."""
    not_a_tool: Any = test_specs_keep_their_order
    with pytest.raises(ConfigError, match="decorate it with @tool"):
        Toolbox([not_a_tool])


def test_the_idempotency_key_identifies_the_call() -> None:
    """The key is made of job, step, tool and arguments only. The order of the arguments does not matter."""
    key = idempotency_key("job-1", "3.0", "refund", {"order": "A1", "amount": 5})
    assert key == idempotency_key("job-1", "3.0", "refund", {"amount": 5, "order": "A1"})
    assert key.startswith("mw-")
    assert len(key) == 35
    others = {
        idempotency_key("job-2", "3.0", "refund", {"order": "A1", "amount": 5}),
        idempotency_key("job-1", "3.1", "refund", {"order": "A1", "amount": 5}),
        idempotency_key("job-1", "3.0", "repay", {"order": "A1", "amount": 5}),
        idempotency_key("job-1", "3.0", "refund", {"order": "A1", "amount": "5"}),
    }
    assert len(others | {key}) == 5
    assert idempotency_key("a", "1.0", "t", {"x": "\ud800"}), "even from arguments that no text can hold"


def test_a_tool_is_found_by_its_exact_name_only() -> None:
    """Case and spaces count: a call with an almost right name does not run."""
    for name in ("Book", "book ", "BOOK", ""):
        assert refused(name, "{}").kind == "unknown_tool"
    assert isinstance(BOX.get("book"), Tool)
