"""How Midwatch works: an agent, a tool, a job, and what happens when something fails. Read this file first.

These tests need no server, no network and no key. `run_inline` runs the real steps in this process. A `ScriptedModel`
gives the answers of the model.
"""

from __future__ import annotations

from midwatch import Agent, Escalation, RetryConfig, ToolContext, ToolError, tool
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import ToolCall, ToolMessage
from midwatch.testing import InlineFleet, ScriptedModel, call, run_inline

ORDERS = {"A-17": "shipped on Monday"}


@tool(idempotent=True)
def look_up(order: str) -> str:
    """Find out where an order is.

    Args:
        order: its number, as in A-17.
    """
    if order not in ORDERS:
        raise ToolError(f"there is no order {order}")
    return ORDERS[order]


clerk = Agent("clerk", "claude-sonnet-4-6", "You answer questions about orders.", tools=[look_up])


def test_a_job_from_input_to_output():
    """An agent is a name, a pinned model, a prompt and tools. A job is one input for an agent.

    Midwatch calls the model once in each turn. In the first turn the model calls a tool. In the second turn it sees the
    result and answers in words. This answer is the job's output.
    """
    script = ScriptedModel([call("look_up", order="A-17"), "It was shipped on Monday."])

    result = run_inline(clerk, "Where is my order A-17?", model=script)

    assert result.status is JobStatus.COMPLETED
    assert result.output == "It was shipped on Monday."
    assert result.steps == 2
    first, second = script.requests
    assert [message.role for message in first.messages] == ["user"]
    assert [message.role for message in second.messages] == ["user", "assistant", "tool"]
    assert second.messages[-1].content == "shipped on Monday"


def test_a_call_that_breaks_its_schema_never_runs():
    """Midwatch validates the arguments first. The model gets the expected and the actual value, and tries again.

    The schema comes from the function's type hints and docstring. Use `JSONSchemaValidator` for your own schema.
    """
    script = ScriptedModel(
        [
            call("look_up", number="A-17"),
            ToolCall(id="call_2", name="look_up", raw_arguments='{"order": "A-1'),
            call("look_up", order="A-17"),
            "It was shipped on Monday.",
        ]
    )

    result = run_inline(clerk, "Where is my order A-17?", model=script)

    assert result.status is JobStatus.COMPLETED
    answers = [message for message in script.requests[-1].messages if isinstance(message, ToolMessage)]
    assert [answer.is_error for answer in answers] == [True, True, False]
    assert "order" in answers[0].content
    assert "cut off" in answers[1].content


def test_tool_error_is_an_answer_to_the_model():
    """A tool raises `ToolError` when the request is wrong. It is never retried, because only the model can correct it."""
    script = ScriptedModel([call("look_up", order="Z-9"), "I can't find the order Z-9."])

    run_inline(clerk, "Where is Z-9?", model=script)

    assert script.requests[-1].messages[-1].content == "Error: there is no order Z-9"


def test_a_transient_failure_is_retried():
    """When a provider is overloaded, the step is deferred. The wait grows and has jitter. No worker waits for it."""
    script = ScriptedModel([FailureKind.OVERLOADED, FailureKind.RATE_LIMITED, "Good evening."])
    fleet = InlineFleet(clerk, model=script)
    job_id = fleet.enqueue(clerk, "Hello?")

    assert fleet.run(job_id).output == "Good evening."
    assert [record.outcome for record in fleet.trace(job_id)] == ["defer", "defer", "complete"]
    assert fleet.store.job(job_id).retries == 2


def test_a_permanent_failure_becomes_a_dead_letter():
    """With a wrong API key a retry does not help. The dead letter keeps the step and the reason. The session waits.

    After the key is corrected, a person replays the job. It resumes at the failed step. Finished steps do not run again.
    """
    script = ScriptedModel([call("look_up", order="A-17"), FailureKind.AUTH_ERROR, "It was shipped on Monday."])
    fleet = InlineFleet(clerk, model=script)
    job_id = fleet.enqueue(clerk, "Where is my order A-17?")

    result = fleet.run(job_id)
    assert result.status is JobStatus.DEAD_LETTERED
    assert result.failure.kind is FailureKind.AUTH_ERROR
    letter = fleet.operations.dead_letter(job_id)
    assert (letter.step, letter.agent) == ("2", "clerk")

    assert fleet.operations.replay(job_id)
    assert fleet.run(job_id).output == "It was shipped on Monday."
    assert not fleet.operations.replay(job_id), "a second replay does nothing"
    assert [record.step for record in fleet.trace(job_id)] == ["1", "1.0", "2", "2"]


refunds: list[tuple[str, str]] = []


@tool
def refund(order: str, context: ToolContext) -> str:
    """Pay an order back."""
    refunds.append((order, context.idempotency_key))
    return "paid back"


def test_a_human_approves_a_tool_call():
    """A tool that needs approval parks the job. No worker waits. After the approval the call runs once."""
    careful = Agent(
        "cashier",
        "claude-sonnet-4-6",
        "You pay back.",
        tools=[refund],
        escalation=[Escalation(when="tool_approval", tools=("refund",))],
    )
    fleet = InlineFleet(careful, model=ScriptedModel([call("refund", order="A-17"), "Your money is on its way."]))
    job_id = fleet.enqueue(careful, "I want my money back.")

    assert fleet.run(job_id).status is JobStatus.PARKED
    assert refunds == []
    fleet.operations.decide(job_id, approve=True)

    assert fleet.run(job_id).output == "Your money is on its way."
    ((order, key),) = refunds
    assert order == "A-17"
    assert key.startswith("mw-"), "the key is the same for every attempt: pass it to the payment service"


def test_a_conversation_outlives_its_jobs():
    """The jobs of a session run one after the other. Each job sees the messages of the earlier ones."""
    script = ScriptedModel([call("look_up", order="A-17"), "It was shipped on Monday.", "No, still on its way."])
    fleet = InlineFleet(clerk, model=script)
    first = fleet.enqueue(clerk, "Where is A-17?", session_id="ada")
    second = fleet.enqueue(clerk, "Has it arrived?", session_id="ada")

    assert fleet.run(second).output == "No, still on its way."
    assert fleet.store.job(first).status is JobStatus.COMPLETED
    assert [message.role for message in script.requests[-1].messages] == [
        "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip


def test_retry_config_decides_what_is_retried():
    """`RetryConfig` says which failures are retried, how often and how soon. An agent or an idempotent tool can have one."""
    keys: list[str] = []

    @tool(idempotent=True, retry=RetryConfig(max_retries=2, retry_on=["connection"]))
    def ask_warehouse(order: str, context: ToolContext) -> str:
        """Ask the warehouse."""
        keys.append(context.idempotency_key)
        if len(keys) < 3:
            raise ConnectionResetError("the warehouse hung up")
        return "on shelf 9"

    agent = Agent("clerk", "claude-sonnet-4-6", "You help.", tools=[ask_warehouse])
    result = run_inline(agent, "Is it there?", model=ScriptedModel([call("ask_warehouse", order="A-17"), "Yes."]))

    assert result.output == "Yes."
    assert len(keys) == 3
    assert len(set(keys)) == 1, "every attempt has the same idempotency key"
