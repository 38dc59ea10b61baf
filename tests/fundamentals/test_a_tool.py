"""How a tool works: a function that a model may call. Read this file from top to bottom.

A call passes three stages: the declaration of the tool, the validation of the arguments, and the run.
"""

from __future__ import annotations

import pytest

from midwatch import ToolContext, ToolError, tool
from midwatch.orchestration.errors import ConfigError, ToolFailed
from midwatch.orchestration.tools.result_pages import read_page
from midwatch.orchestration.tools.results import bound, new_handle
from midwatch.orchestration.tools.run import run_tool
from midwatch.orchestration.tools.toolbox import CheckedCall, RefusedCall, Toolbox, idempotency_key
from midwatch.schemas.message import ToolCall
from midwatch.schemas.policy import RetryConfig
from midwatch.validators import JSONSchemaValidator

ORDERS = {"W1001": {"status": "shipped", "total": 19.99}, "W1002": {"status": "pending", "total": 5.00}}


@tool
def find_order(number: str) -> dict[str, object]:
    """Look up an order.

    Args:
        number: The order number, such as W1001.
    """
    if number not in ORDERS:
        raise ToolError(f"there is no order {number}; ask the customer for the number on the receipt")
    return dict(ORDERS[number])


@tool(
    name="cancel_order",
    description="Cancel an order that was not shipped yet",
    validator=JSONSchemaValidator(
        {
            "type": "object",
            "properties": {
                "number": {"type": "string", "pattern": "^W[0-9]{4}$"},
                "reason": {"enum": ["no_longer_needed", "ordered_by_mistake"]},
            },
            "required": ["number", "reason"],
            "additionalProperties": False,
        }
    ),
    idempotent=True,
    retry=RetryConfig(max_retries=2, retry_on=("tool_error",)),
)
def cancel_order(number: str, reason: str, context: ToolContext) -> str:
    """Midwatch passes the context. The shop gets its key, so a second attempt does not cancel the order twice."""
    return f"cancelled {number} ({reason}) under {context.idempotency_key}"


DESK = Toolbox([find_order, cancel_order])


def check_call(name: str, raw_arguments: str) -> CheckedCall | RefusedCall:
    """Validate a call as the model sends it: a name, and a text that should be JSON."""
    return DESK.check(ToolCall(id="call_0", name=name, raw_arguments=raw_arguments))


def test_a_typed_documented_function_is_a_tool() -> None:
    """The model gets the name, the first paragraph of the docstring, and a schema from the type hints."""
    assert find_order.spec.name == "find_order"
    assert find_order.spec.description == "Look up an order."
    assert find_order.spec.input_schema == {
        "type": "object",
        "properties": {"number": {"type": "string", "description": "The order number, such as W1001."}},
        "required": ["number"],
        "additionalProperties": False,
    }


def test_a_valid_call_runs_and_returns_text() -> None:
    """Only a validated call can run. The model gets the result as text."""
    call = check_call("find_order", '{"number": "W1001"}')
    assert isinstance(call, CheckedCall)
    assert run_tool(call.tool, call.arguments).content == '{"status":"shipped","total":19.99}'


def test_an_invalid_call_does_not_run_and_returns_an_error() -> None:
    """The error gives the place, the expected and the actual value, so that the model can correct the call."""
    call = check_call("cancel_order", '{"number": "1002", "reason": "no_longer_neded"}')
    assert isinstance(call, RefusedCall)
    assert call.message.splitlines() == [
        "cancel_order was not run: its arguments are not valid.",
        '/number: expected text that matches "^W[0-9]{4}$"; got "1002"',
        '/reason: expected one of "no_longer_needed", "ordered_by_mistake" (did you mean "no_longer_needed"?); '
        'got "no_longer_neded"',
        'Required: number (string), reason (one of "no_longer_needed", "ordered_by_mistake").',
    ]


def test_invalid_json_is_never_repaired() -> None:
    """A repaired call could be one that the model did not mean. A call that was cut off gets its own error."""
    call = check_call("cancel_order", '{"number": "W1002", "reason": "no_long')
    assert isinstance(call, RefusedCall)
    assert call.kind == "cut_off"
    assert "cut off" in call.message


def test_an_unknown_tool_returns_the_known_names() -> None:
    """Models get names wrong. The error suggests the most similar name and lists all tools."""
    call = check_call("find_orders", "{}")
    assert isinstance(call, RefusedCall)
    assert call.message.startswith("There is no tool 'find_orders'. Did you mean find_order")
    assert call.message.endswith("The tools are: find_order, cancel_order.")


def test_every_attempt_at_a_call_has_the_same_key() -> None:
    """The key depends on job, step, tool and arguments. It ignores the provider's call id, because real models repeat ids."""
    arguments = {"number": "W1002", "reason": "ordered_by_mistake"}
    key = idempotency_key("job-7", "3.0", "cancel_order", arguments)
    context = ToolContext(job_id="job-7", step_id="3.0", session_id="s", idempotency_key=key)
    outcome = run_tool(cancel_order, arguments, context)
    assert outcome.content == f"cancelled W1002 (ordered_by_mistake) under {key}"
    assert key == idempotency_key("job-7", "3.0", "cancel_order", dict(reversed(arguments.items())))


def test_tool_error_is_an_answer_to_the_model() -> None:
    """A tool raises `ToolError` when the request was wrong. This is not a failure and is not retried."""
    with pytest.raises(ToolError, match="ask the customer"):
        run_tool(find_order, {"number": "W9"})


def test_any_other_exception_becomes_a_failure() -> None:
    """A failure has a kind, which the retry policy uses, and a detail. The traceback never enters the conversation.

    An exception that reports a refused connection or an HTTP status gets the matching kind. Any other exception is a
    `tool_error`.
    """

    @tool("flaky", "Fails.", JSONSchemaValidator({"type": "object"}))
    def flaky() -> str:
        raise ConnectionError("the shop does not answer")

    with pytest.raises(ToolFailed) as failed:
        run_tool(flaky, {})
    assert failed.value.failure.kind == "connection"
    assert failed.value.failure.detail == "ConnectionError: the shop does not answer"


def test_a_long_result_is_cut_for_the_model_and_stored_whole() -> None:
    """The model sees the beginning and the end. It can read the rest with `read_result`."""
    text = "\n".join(f"line {number}" for number in range(10_000))
    handle = new_handle("job-7", "4.0")
    result = bound(text, 1_000, handle)
    assert result.content.startswith("line 0\n")
    assert result.content.endswith("line 9999")
    assert f'read_result(handle="{handle}", offset=1750, length=8000)' in result.content
    assert result.body is not None
    assert read_page(result.body, 1750, 8000).startswith(text[1750:1800])


def test_retries_need_an_idempotent_tool() -> None:
    """A tool that must not run twice can't have retries. The declaration fails, not a job in production."""
    with pytest.raises(ConfigError, match="Set idempotent=True"):
        tool(name="pay", description="Pay.", retry=RetryConfig(max_retries=3))(lambda: "paid")
