"""How a conversation can be longer than its window: budget, memory, originals. Each test explains one idea.

These tests need no server, no network and no key; see `test_one_step.py`.
"""

from __future__ import annotations

import json

from midwatch import Agent, ContextBudget, tool
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import NoteMessage, ToolMessage, UserMessage
from midwatch.testing import InlineFleet, ScriptedModel, call

ORDERS = {f"W-{number}": f"parcel P-{7 * number}" for number in range(101, 117)}


@tool(idempotent=True, inline=True)
def look_up(order: str) -> str:
    """Look an order up."""
    return f"Order {order}: {ORDERS[order]}. " + "Left at the depot, then on the van, then at the depot again. " * 25


def clerk(**budget: object) -> Agent:
    """Declare an agent whose calls have room for about four results of `look_up`."""
    return Agent(
        "clerk",
        "claude-sonnet-4-6",
        "You look orders up.",
        tools=[look_up],
        context_budget=ContextBudget(**{"max_tokens": 4_000, "reserve_output": 500, **budget}),
    )


def script() -> ScriptedModel:
    """Create a model that looks up all sixteen orders, one after the other."""
    return ScriptedModel([*(call("look_up", order=order) for order in ORDERS), "All sixteen are on their way."])


def test_a_conversation_may_be_longer_than_its_window():
    """`max_tokens` is the budget of one call: prompt, tools, memory, messages, and the reserve for the answer.

    Before the budget is full, long old results leave the window. Then the oldest groups leave it. A group is a model
    message with all its results, and it is never split. The job continues as before.
    """
    model = script()
    fleet = InlineFleet(clerk(), model=model)
    result = fleet.run(fleet.enqueue(clerk(), "Where are my sixteen orders?"))

    assert result.status is JobStatus.COMPLETED
    sizes = [len(json.dumps([message.model_dump() for message in request.messages])) for request in model.requests]
    assert max(sizes) < 4_000 * 4
    assert sum(sizes) < len(sizes) * sizes[4] * 2


def test_the_memory_keeps_the_facts_of_removed_groups():
    """The memory is a note at the beginning of every later call: ids, amounts, dates and names, each with its group.

    The facts are copied without a model, so they are never invented. Facts from tools are in a section of data that is
    marked as untrusted.
    """
    model = script()
    fleet = InlineFleet(clerk(), model=model)
    fleet.run(fleet.enqueue(clerk(), "Where are my sixteen orders?"))

    note = model.requests[-1].messages[0]
    assert isinstance(note, NoteMessage)
    assert "second-hand" in note.text
    by_the_user, by_tools = note.text.split("Returned by tools")
    assert "UNTRUSTED" in by_tools
    assert "P-707" in by_tools
    assert "P-707" not in by_the_user


def test_prompt_and_pins_stay_unchanged():
    """The user's prompt, the system prompt, the goal and the pins are part of every call, word for word."""
    model = script()
    agent = clerk(pin=("Parcels over 20 kg go by freight.",))
    fleet = InlineFleet(agent, model=model)
    fleet.run(fleet.enqueue(agent, "Where are my sixteen orders?"))

    last = model.requests[-1]
    assert "Parcels over 20 kg go by freight." in last.system
    assert [message.text for message in last.messages if isinstance(message, UserMessage)] == [
        "Where are my sixteen orders?"
    ]


def test_the_model_can_read_every_original():
    """Once there is a memory, the model also has the tool `recall`. It reads the originals of a removed group."""
    model = ScriptedModel(
        [*(call("look_up", order=order) for order in ORDERS), call("recall", group=2), "P-707, as it says."]
    )
    fleet = InlineFleet(clerk(), model=model)
    job = fleet.enqueue(clerk(), "Where are my sixteen orders?")
    fleet.run(job)

    recalled = fleet.messages(job)[-2]
    assert isinstance(recalled, ToolMessage)
    assert "Order W-101: parcel P-707. Left at the depot, then on the van" in recalled.content


def test_between_two_compactions_the_window_only_grows():
    """Each call begins with the same messages as the call before, so a provider's prompt cache works."""
    model = script()
    fleet = InlineFleet(clerk(), model=model)
    fleet.run(fleet.enqueue(clerk(), "Where are my sixteen orders?"))

    pairs = list(zip(model.requests, model.requests[1:], strict=False))
    grown = [after.messages[: len(before.messages)] == before.messages for before, after in pairs]
    compactions = fleet.operations.counters()["compactions"]
    assert grown.count(False) == compactions
    assert 1 <= compactions <= len(pairs) // 2


def test_on_overflow_decides_what_a_full_budget_does():
    """`summarize_and_trim` is the default. `escalate` asks a human first. `fail` ends the job and gives the numbers."""
    asking = clerk(on_overflow="escalate")
    fleet = InlineFleet(asking, model=script())
    job = fleet.enqueue(asking, "Where are my sixteen orders?")
    assert fleet.run(job).status is JobStatus.PARKED
    while fleet.run(job).status is JobStatus.PARKED:
        fleet.operations.decide(job, approve=True)
    assert fleet.run(job).output == "All sixteen are on their way."

    strict = clerk(on_overflow="fail")
    fleet = InlineFleet(strict, model=script())
    result = fleet.run(fleet.enqueue(strict, "Where are my sixteen orders?"))
    assert result.failure is not None
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "context_overflow")
    assert "of 4000 with 500 reserved for the answer" in result.failure.detail
