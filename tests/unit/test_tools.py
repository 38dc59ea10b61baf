"""@tool: what a declaration holds, when it is refused, and when its digest changes."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch import ToolContext, tool
from midwatch.orchestration.errors import ConfigError, RunInsideTool
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.toolbox import agent_tool
from midwatch.schemas.policy import RetryConfig
from midwatch.validators import JSONSchemaValidator

ORDER = JSONSchemaValidator(
    {
        "type": "object",
        "properties": {"order": {"type": "string"}, "note": {"type": "string"}},
        "required": ["order"],
    }
)


def refund(order: str, note: str = "") -> str:
    """Refund an order."""
    return order + note


def test_a_bare_decorator_is_enough_for_a_documented_typed_function() -> None:
    """Name, description and schema come from the function itself."""

    @tool
    def find_order(order: str, deep: bool = False) -> dict[str, str]:
        """Find an order by its number.

        Args:
            order: Number with its letter.
        """
        return {"order": order}

    assert isinstance(find_order, Tool)
    assert find_order.name == "find_order"
    assert find_order.spec.description == "Find an order by its number."
    assert find_order.spec.input_schema["properties"]["order"]["description"] == "Number with its letter."
    assert find_order.spec.input_schema["required"] == ["order"]
    assert (find_order.idempotent, find_order.timeout_s, find_order.inline, find_order.child) == (
        False,
        30.0,
        False,
        None,
    )


def test_a_tool_is_still_callable_as_the_function() -> None:
    """The author of the tool can test it as a function."""
    assert tool("refund", "Refund.", ORDER)(refund)("A1", note="!") == "A1!"


def test_a_tool_keeps_all_its_policies() -> None:
    """Every declared policy is an attribute of the tool, under the same name."""

    def dear(arguments: dict[str, Any]) -> bool:
        return len(arguments["order"]) > 5

    retry = RetryConfig(max_retries=2)
    made = tool(
        "refund",
        "Refund an order",
        ORDER,
        idempotent=True,
        timeout_s=5,
        downstream="shop:eu",
        requires_approval=dear,
        max_result_tokens=500,
        retry=retry,
    )(refund)
    assert (made.timeout_s, made.downstream, made.max_result_tokens, made.retry) == (5, "shop:eu", 500, retry)
    assert made.idempotent
    assert not made.inline
    assert not made.needs_approval({"order": "A1"})
    assert made.needs_approval({"order": "A123456"})
    assert made.needs_approval({}), "if the rule raises, a human decides"
    assert tool("refund", "Refund.", ORDER, requires_approval=True)(refund).needs_approval({})


def test_the_context_parameter_is_not_in_the_schema() -> None:
    """The runtime fills in the ToolContext. The model never sees the parameter."""

    @tool
    def send(to: str, ctx: ToolContext) -> str:
        """Send a message."""
        return to

    assert send.takes_context == "ctx"
    assert list(send.spec.input_schema["properties"]) == ["to"]


def test_a_function_may_take_any_arguments_with_a_validator() -> None:
    """`**arguments` needs a schema from elsewhere, such as that of an MCP server."""

    @tool("forward", "Forward to the server.", ORDER)
    def forward(**arguments: Any) -> str:
        return str(sorted(arguments))

    assert forward(order="A", note="b") == "['note', 'order']"


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"name": "2nd"}, "expected a letter or _"),
        ({"name": "a.b"}, "expected a letter or _"),
        ({"name": "x" * 65}, "at most 64"),
        ({"name": ""}, "expected a letter or _"),
        ({"description": "  "}, "the model chooses by it"),
        ({"validator": {"type": "object"}}, "expected validator=JSONSchemaValidator"),
        ({"timeout_s": 0}, "seconds above 0"),
        ({"timeout_s": float("nan")}, "seconds above 0"),
        ({"timeout_s": float("inf")}, "seconds above 0"),
        ({"timeout_s": True}, "seconds above 0"),
        ({"timeout_s": "5"}, "got '5'"),
        ({"max_result_tokens": 99}, "from 100 on"),
        ({"max_result_tokens": 1e4}, "a whole number"),
        ({"downstream": "a b"}, "part of a Redis key"),
        ({"downstream": "{x}"}, "part of a Redis key"),
        ({"requires_approval": "yes"}, "True, False or a function"),
        ({"retry": 3}, "expected a RetryConfig"),
        ({"retry": RetryConfig(max_retries=1)}, "Set idempotent=True"),
    ],
)
def test_a_contradictory_declaration_is_refused(declared: dict[str, Any], says: str) -> None:
    """The error comes at import. It says what was expected, what was given, and what to do."""
    whole: dict[str, Any] = {"name": "refund", "description": "Refund.", "validator": ORDER} | declared
    with pytest.raises(ConfigError) as refused:
        tool(**whole)(refund)
    assert says in str(refused.value)


def test_zero_retries_do_not_need_an_idempotent_tool() -> None:
    """With `max_retries=0` no call is repeated, so no effect can happen twice. `fail_hard_on` still has its effect."""
    config = RetryConfig(max_retries=0, fail_hard_on=["tool_error"])
    assert tool("refund", "Refund.", ORDER, retry=config)(refund).retry


def _no_note(order: str) -> str:
    return order


def _needs_more(order: str, note: str) -> str:
    return order


def _needs_other(order: str, note: str, amount: int) -> str:
    return order


def _yields(order: str, note: str = "") -> Any:
    yield order


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (_no_note, "has no such parameter"),
        (_needs_more, "optional in the schema"),
        (_needs_other, "no default"),
        (_yields, "return a list"),
    ],
)
def test_function_and_schema_must_agree(function: Any, says: str) -> None:
    """A call that passes the schema must not fail because the function has no such parameter."""
    with pytest.raises(ConfigError) as refused:
        tool("refund", "Refund.", ORDER)(function)
    assert says in str(refused.value)


def test_a_parameter_with_a_default_may_be_missing_from_the_schema() -> None:
    """Such a parameter is never set by the model."""
    tool("find", "Find.", ORDER)(lambda order, note="", cache=None: order)


def test_a_bare_decorator_without_a_docstring_says_what_is_missing() -> None:
    """A tool needs a description, since the model chooses the tool by it."""
    with pytest.raises(ConfigError, match="expected a description"):

        @tool
        def silent(order: str) -> str:
            return order


def test_only_functions_can_be_tools() -> None:
    """A class or an already decorated tool is refused."""
    made = tool("refund", "Refund.", ORDER)(refund)
    for thing in (made, str, "refund"):
        with pytest.raises(ConfigError, match="expected a function"):
            tool("x", "y", ORDER)(thing)  # type: ignore[arg-type]


def test_the_digest_changes_with_the_declaration() -> None:
    """The same declaration has the same digest. A changed description, schema or policy changes it."""

    def declare(**changed: Any) -> str:
        whole: dict[str, Any] = {"name": "refund", "description": "Refund.", "validator": ORDER} | changed
        return tool(**whole)(refund).digest

    other_schema = JSONSchemaValidator({**ORDER.schema, "additionalProperties": False})
    digests = {
        declare(),
        declare(name="repay"),
        declare(description="Repay."),
        declare(validator=other_schema),
        declare(idempotent=True),
        declare(timeout_s=1),
        declare(requires_approval=True),
        declare(downstream="shop"),
        declare(inline=True),
        declare(max_result_tokens=100),
    }
    assert len(digests) == 10
    assert declare() == declare(validator=JSONSchemaValidator(dict(ORDER.schema)))


def test_an_agent_as_a_tool_has_no_function_to_call() -> None:
    """A call of the tool becomes a child job."""
    made = agent_tool("researcher", "Looks things up.")
    assert (made.name, made.child, made.idempotent) == ("researcher", "researcher", True)
    assert made.validator.problems({"input": "find it"}) == ()
    assert made.validator.problems({"input": ""})
    with pytest.raises(RunInsideTool, match="child job"):
        made(input="find it")
