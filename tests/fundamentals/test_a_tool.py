"""A tool: a function that a model may call. Read from top to bottom.

Between the model and the function stand the declaration, the check and the run; each is one of the stories below.
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
    """The context is filled in by the runtime. Its key goes to the shop, so that a second try cancels nothing twice."""
    return f"cancelled {number} ({reason}) under {context.idempotency_key}"


DESK = Toolbox([find_order, cancel_order])


def called(name: str, raw_arguments: str) -> CheckedCall | RefusedCall:
    """A model's call, as it comes off the wire: a name, and a text that should be JSON."""
    return DESK.check(ToolCall(id="call_0", name=name, raw_arguments=raw_arguments))


def test_a_typed_documented_function_is_a_tool() -> None:
    """The model is told the name, the first paragraph, and a schema made from the type hints."""
    assert find_order.spec.name == "find_order"
    assert find_order.spec.description == "Look up an order."
    assert find_order.spec.input_schema == {
        "type": "object",
        "properties": {"number": {"type": "string", "description": "The order number, such as W1001."}},
        "required": ["number"],
        "additionalProperties": False,
    }


def test_a_call_that_passes_is_run_and_its_result_is_text() -> None:
    """Check first, then run: the only way there is."""
    call = called("find_order", '{"number": "W1001"}')
    assert isinstance(call, CheckedCall)
    assert run_tool(call.tool, call.arguments).content == '{"status":"shipped","total":19.99}'


def test_a_call_that_does_not_pass_is_answered_not_run() -> None:
    """The answer says where, what was expected and what came, so that the model gets it right the next time."""
    call = called("cancel_order", '{"number": "1002", "reason": "no_longer_neded"}')
    assert isinstance(call, RefusedCall)
    assert call.message.splitlines() == [
        "cancel_order was not run: its arguments are not valid.",
        '/number: expected text that matches "^W[0-9]{4}$"; got "1002"',
        '/reason: expected one of "no_longer_needed", "ordered_by_mistake" (did you mean "no_longer_needed"?); '
        'got "no_longer_neded"',
        'Required: number (string), reason (one of "no_longer_needed", "ordered_by_mistake").',
    ]


def test_text_that_is_no_json_is_never_repaired() -> None:
    """A reply that was cut off must not become a call that nobody made."""
    call = called("cancel_order", '{"number": "W1002", "reason": "no_long')
    assert isinstance(call, RefusedCall)
    assert call.kind == "cut_off"
    assert "cut off" in call.message


def test_a_tool_that_does_not_exist_is_answered_with_those_that_do() -> None:
    """Models misremember names."""
    call = called("find_orders", "{}")
    assert isinstance(call, RefusedCall)
    assert call.message.startswith("There is no tool 'find_orders'. Did you mean find_order")
    assert call.message.endswith("The tools are: find_order, cancel_order.")


def test_every_try_at_one_call_has_the_same_key() -> None:
    """Job, step, tool and arguments make it; the provider's call id, which real models repeat, does not."""
    arguments = {"number": "W1002", "reason": "ordered_by_mistake"}
    key = idempotency_key("job-7", "3.0", "cancel_order", arguments)
    context = ToolContext(job_id="job-7", step_id="3.0", session_id="s", idempotency_key=key)
    outcome = run_tool(cancel_order, arguments, context)
    assert outcome.content == f"cancelled W1002 (ordered_by_mistake) under {key}"
    assert key == idempotency_key("job-7", "3.0", "cancel_order", dict(reversed(arguments.items())))


def test_a_tool_may_answer_that_the_request_was_wrong() -> None:
    """`ToolError` is an answer to the model: no failure, no retry."""
    with pytest.raises(ToolError, match="ask the customer"):
        run_tool(find_order, {"number": "W9"})


def test_whatever_else_goes_wrong_is_a_failure_as_data() -> None:
    """A kind that the retry policy knows, and a sentence; the traceback stays out of the conversation.

    What an exception says of a service (it refused the connection, it answered 429) becomes that kind; anything else is
    `tool_error`.
    """

    @tool("flaky", "Fails.", JSONSchemaValidator({"type": "object"}))
    def flaky() -> str:
        raise ConnectionError("the shop does not answer")

    with pytest.raises(ToolFailed) as failed:
        run_tool(flaky, {})
    assert failed.value.failure.kind == "connection"
    assert failed.value.failure.detail == "ConnectionError: the shop does not answer"


def test_a_long_result_is_shown_in_part_and_kept_whole() -> None:
    """The model sees both ends, and reads on with `read_result` where it must."""
    text = "\n".join(f"line {number}" for number in range(10_000))
    handle = new_handle("job-7", "4.0")
    result = bound(text, 1_000, handle)
    assert result.content.startswith("line 0\n")
    assert result.content.endswith("line 9999")
    assert f'read_result(handle="{handle}", offset=1750, length=8000)' in result.content
    assert result.body is not None
    assert read_page(result.body, 1750, 8000).startswith(text[1750:1800])


def test_a_promise_that_can_not_be_kept_is_refused_at_once() -> None:
    """Retrying what must not run twice: said where it is declared, not in the night when it happens."""
    with pytest.raises(ConfigError, match="Say idempotent=True"):
        tool(name="pay", description="Pay.", retry=RetryConfig(max_retries=3))(lambda: "paid")
