"""The request of one model call: the agent, the session's memory, and the live messages."""

from __future__ import annotations

from midwatch import Agent, ContextBudget, GoalContract, tool
from midwatch.orchestration.context import window
from midwatch.orchestration.context.recall import RECALL
from midwatch.orchestration.context.render import render
from midwatch.orchestration.tokens.weight import weigh
from midwatch.schemas.memory import Facts, Memory
from midwatch.schemas.message import NoteMessage, UserMessage
from tests.unit.claims import claim_of, result, said, tool_call

MEMORY = Memory(
    through_group=4,
    facts=(Facts(group=2, source="look_up", untrusted=True, items=("W-17", "W-18"), label="order_id"),),
    open_items=("Find W-18",),
    compactions=1,
)


@tool(idempotent=True)
def look_up(order: str) -> str:
    """Find an order."""
    return order


def agent(**fields):
    return Agent("clerk", "scripted:m-1", "You help.", tools=[look_up], **fields)


def long_log(turns, chars=2_000):
    """A conversation of many turns, each with two results."""
    log = [UserMessage(group=1, text="Where is A-17?")]
    for group in range(2, 2 + turns):
        log += [said(group, tool_call("look_up"), tool_call("look_up"))]
        log += [result(group, n, "x" * chars) for n in (0, 1)]
    return tuple(log)


def test_a_request_contains_the_agent_and_the_whole_conversation():
    """A request has the system prompt, the goal, the tools, the messages, the output reserve, and the session as cache key."""
    goal = GoalContract(objective="Find the order", deliverables=("its state",), constraints=("be polite",))
    clerk = agent(goal=goal, context_budget=ContextBudget(max_tokens=10_000, reserve_output=500))
    claim = claim_of(log=long_log(2, chars=5))
    request = window.assemble(clerk, claim)
    assert request.messages == claim.log
    assert request.system.startswith("You help.")
    for line in ("Find the order", "its state", "be polite"):
        assert line in request.system
    assert [spec.name for spec in request.tools] == ["look_up"]
    assert (request.model, request.max_output_tokens, request.cache_key) == ("m-1", 500, "s1")


def test_pinned_texts_are_part_of_the_system_prompt():
    """No compaction changes them there, and a prompt cache can hold them."""
    clerk = agent(context_budget=ContextBudget(max_tokens=10_000, pin=("Prices are in EUR.", "It is 2026.")))
    system = window.assemble(clerk, claim_of()).system
    assert system.endswith("# Always true\n- Prices are in EUR.\n- It is 2026.")


def test_the_same_claim_gives_the_same_bytes():
    """A provider's prompt cache depends on this."""
    one, two = (window.assemble(agent(), claim_of(log=long_log(3), memory=MEMORY)) for _ in range(2))
    assert one.model_dump_json() == two.model_dump_json()


def test_a_session_with_stored_results_offers_read_result():
    """`read_result` is offered after the agent's own tools."""
    request = window.assemble(agent(), claim_of(flags=frozenset({"results"})))
    assert [spec.name for spec in request.tools] == ["look_up", "read_result"]


def test_a_memory_comes_first_and_adds_recall():
    """The memory is a note of the runtime, which no provider treats as the user's text. `recall` is the last tool."""
    claim = claim_of(log=long_log(2), memory=MEMORY, flags=frozenset({"results"}))
    request = window.assemble(agent(), claim)
    assert request.messages[0] == NoteMessage(group=4, text=render(MEMORY))
    assert request.messages[1:] == claim.log
    assert [spec.name for spec in request.tools] == ["look_up", "read_result", "recall"]


def test_a_long_conversation_is_sent_whole():
    """Only a compaction makes room, for this call and all later ones."""
    small = agent(context_budget=ContextBudget(max_tokens=2_000, reserve_output=500))
    claim = claim_of(log=long_log(30))
    assert window.assemble(small, claim).messages == claim.log


def test_the_weight_counts_the_whole_request():
    """The weight includes prompt, tools, messages and memory."""
    clerk, bare = agent(), claim_of(log=long_log(2))
    assert window.weight_of(clerk, bare) == clerk.fixed_weight + bare.log_weight
    with_memory = claim_of(log=long_log(2), memory=MEMORY)
    noted = window.weight_of(clerk, with_memory) - window.weight_of(clerk, bare)
    recall = weigh(RECALL.model_dump_json())
    assert noted - recall == window.note_weight(MEMORY) == weigh(render(MEMORY)) > 0
