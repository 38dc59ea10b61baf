"""How a conversation outlives its window: budget, memory, originals. Each test is one idea, and reads like documentation.

Nothing here needs a server, a network or a key; see `test_one_step.py`.
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
    """An agent whose calls hold about four of these results."""
    return Agent(
        "clerk",
        "claude-sonnet-4-6",
        "You look orders up.",
        tools=[look_up],
        context_budget=ContextBudget(**{"max_tokens": 4_000, "reserve_output": 500, **budget}),
    )


def script() -> ScriptedModel:
    """A model that looks at all sixteen orders, one after the other."""
    return ScriptedModel([*(call("look_up", order=order) for order in ORDERS), "All sixteen are on their way."])


def test_a_conversation_may_be_longer_than_its_window():
    """`max_tokens` is the budget of one call: prompt, tools, memory, messages, and the reserve for the answer.

    Long before it is full, bulky old results leave the window, then the oldest groups do. A group is a turn of the model
    with all its results, and is never torn apart. The job notices nothing.
    """
    model = script()
    fleet = InlineFleet(clerk(), model=model)
    result = fleet.run(fleet.enqueue(clerk(), "Where are my sixteen orders?"))

    assert result.status is JobStatus.COMPLETED
    sizes = [len(json.dumps([message.model_dump() for message in request.messages])) for request in model.requests]
    assert max(sizes) < 4_000 * 4
    assert sum(sizes) < len(sizes) * sizes[4] * 2


def test_what_left_the_window_stays_in_the_memory():
    """The memory is a note at the beginning of every later call: ids, amounts, dates and names, each with its group.

    It is made without a model, of what was said verbatim, so it can't make anything up. What tools returned is marked as
    untrusted: the model is told that it is data.
    """
    model = script()
    fleet = InlineFleet(clerk(), model=model)
    fleet.run(fleet.enqueue(clerk(), "Where are my sixteen orders?"))

    note = model.requests[-1].messages[0]
    assert isinstance(note, NoteMessage)
    assert "second-hand" in note.text
    told, returned = note.text.split("Returned by tools")
    assert "UNTRUSTED" in returned
    assert "P-707" in returned
    assert "P-707" not in told


def test_the_users_own_words_stay_to_the_letter():
    """So does what the agent's author pinned: system prompt, goal and pins are part of every call."""
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
    """Once there is a memory, the model has a tool more: `recall` pages the originals of a group that left."""
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
    """Each call begins with the very messages of the one before: a provider's prompt cache keeps what it has read."""
    model = script()
    fleet = InlineFleet(clerk(), model=model)
    fleet.run(fleet.enqueue(clerk(), "Where are my sixteen orders?"))

    pairs = list(zip(model.requests, model.requests[1:], strict=False))
    grown = [after.messages[: len(before.messages)] == before.messages for before, after in pairs]
    compactions = fleet.store.state.counters["compactions"]
    assert grown.count(False) == compactions
    assert 1 <= compactions <= len(pairs) // 2


def test_what_happens_when_it_is_full_is_the_agents_choice():
    """`summarize_and_trim` is the default. `escalate` asks a human first; `fail` ends the job and says how full it was."""
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
