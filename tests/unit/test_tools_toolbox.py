"""Toolbox: nothing runs that has not passed, and every refusal tells the model what to do."""

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
    """Arguments stay what the model said, so that they can be digested, shown and edited."""
    found = check("book", '{"day": "2026-11-24"}')
    assert isinstance(found, CheckedCall)
    assert found.tool is book
    assert found.arguments == {"day": "2026-11-24"}


def test_an_empty_text_calls_a_tool_without_input_only() -> None:
    """`""` is `{}` for `list_queues`, and a mistake for `search_tickets`, whose input is then named."""
    assert isinstance(check("list_queues", ""), CheckedCall)
    answer = refused("search_tickets", "")
    assert answer.kind == "bad_json"
    assert "Required: query (string). Optional: limit (integer)." in answer.message


def test_an_unknown_tool_is_answered_with_the_nearest_names() -> None:
    """Models misspell and make up names; they are told which there are."""
    answer = refused("search_ticket", "{}")
    assert answer.kind == "unknown_tool"
    assert "Did you mean search_tickets?" in answer.message
    assert "The tools are: search_tickets, list_queues, book." in answer.message
    assert "There are no tools" in refused("x", "{}", Toolbox([])).message


def test_the_list_of_names_is_bounded() -> None:
    """With 500 tools, and a name of 10,000 characters, the answer stays short."""
    many = Toolbox([tool(f"tool_{n}", "Does it.")(list_queues.function) for n in range(500)])
    answer = refused("z" * 10_000, "{}", many)
    assert "and 460 more" in answer.message
    assert len(answer.message) < 1_000


def test_invalid_arguments_say_that_nothing_ran() -> None:
    """The model must know whether an effect may have happened: here, none did."""
    answer = refused("search_tickets", '{"query": 5, "limt": 3}')
    assert answer.kind == "schema"
    assert answer.message.splitlines() == [
        "search_tickets was not run: its arguments are not valid.",
        "/limt: expected no such property, did you mean 'limit'?; got 3",
        "/query: expected string; got 5",
        "Required: query (string). Optional: limit (integer).",
    ]


def test_a_value_that_does_not_convert_is_refused_like_a_schema_problem() -> None:
    """A date that passes as text but is none never reaches the function."""
    loose = JSONSchemaValidator({"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]})
    answer = refused("book", '{"day": "soon"}', Toolbox([tool("book", "Book.", loose)(book.function)]))
    assert answer.kind == "schema"
    assert "/day: expected" in answer.message


def test_an_open_schema_does_not_let_unknown_arguments_through() -> None:
    """A schema without `additionalProperties: false` passes a name that the function would choke on."""
    open_schema = JSONSchemaValidator(
        {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    )
    box = Toolbox([tool("search", "Search.", open_schema)(search_tickets.function)])
    assert refused("search", '{"query": "a", "page": 2}', box).kind == "schema"
    anything = Toolbox([tool("search", "Search.", open_schema)(lambda **arguments: "")])
    assert isinstance(check("search", '{"query": "a", "page": 2}', anything), CheckedCall)


def test_a_composed_schema_can_not_let_a_needed_argument_go_missing() -> None:
    """What is required behind `anyOf` is not to be read off at declaration, so the call itself is checked."""
    either = JSONSchemaValidator({"type": "object", "anyOf": [{"required": ["query"]}, {"required": ["id"]}]})
    box = Toolbox([tool("search", "Search.", either)(search_tickets.function)])
    assert "/query: expected a value (it is required)" in refused("search", '{"id": 1}', box).message


def test_specs_keep_their_order() -> None:
    """The order of declaration: a prompt cache pays for every change of it."""
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
    """The likeliest mistake, answered with the cure."""
    not_a_tool: Any = test_specs_keep_their_order
    with pytest.raises(ConfigError, match="decorate it with @tool"):
        Toolbox([not_a_tool])


def test_the_idempotency_key_says_which_call_it_is() -> None:
    """Job, step, tool and arguments make the key, in whatever order the arguments came; nothing else does."""
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
    """No folding, no trimming: a call that is almost right is not run."""
    for name in ("Book", "book ", "BOOK", ""):
        assert refused(name, "{}").kind == "unknown_tool"
    assert isinstance(BOX.get("book"), Tool)
