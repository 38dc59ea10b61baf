"""What one model call sees: everything while it fits, whole groups when it does not."""

from __future__ import annotations

import pytest

from orchestration import Agent, ContextBudget, GoalContract, context, tool
from orchestration.errors import ModelError
from schemas.failure import FailureKind
from schemas.message import UserMessage
from tests.unit.claims import claim_of, result, said, tool_call


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


def test_a_request_is_made_of_the_agent_and_the_whole_conversation():
    """System prompt, goal, tools, messages, the reserve for the answer, the session as the cache's key."""
    goal = GoalContract(objective="Find the order", deliverables=("its state",), constraints=("be polite",))
    clerk = agent(goal=goal, context_budget=ContextBudget(max_tokens=10_000, reserve_output=500))
    claim = claim_of(log=long_log(2, chars=5))
    request = context.assemble(clerk, claim)
    assert request.messages == claim.log
    assert request.system.startswith("You help.")
    for line in ("Find the order", "its state", "be polite"):
        assert line in request.system
    assert [spec.name for spec in request.tools] == ["look_up"]
    assert (request.model, request.max_output_tokens, request.cache_key) == ("m-1", 500, "s1")


def test_the_same_claim_gives_the_same_bytes():
    """A provider's prompt cache lives from it."""
    one, two = (context.assemble(agent(), claim_of(log=long_log(3))) for _ in range(2))
    assert one.model_dump_json() == two.model_dump_json()


def test_kept_results_can_be_paged_where_there_are_any():
    """`read_result` is offered after the agent's own tools."""
    request = context.assemble(agent(), claim_of(flags=frozenset({"results"})))
    assert [spec.name for spec in request.tools] == ["look_up", "read_result"]


def test_over_the_budget_the_oldest_groups_leave_whole():
    """What it is all about stays, the newest stay, and no call is parted from its results."""
    small = agent(context_budget=ContextBudget(max_tokens=10_000, reserve_output=1_000, on_overflow="trim_oldest"))
    claim = claim_of(log=long_log(20))
    sent = context.assemble(small, claim).messages
    assert sent[0] == claim.log[0]
    assert sent[1:] == claim.log[-len(sent[1:]) :]
    assert sent[1].role == "assistant"
    assert sum(len(message.model_dump_json()) for message in sent) < 9_000 * context.BYTES_PER_TOKEN
    assert len(sent) > 9


def test_the_newest_group_is_sent_even_when_it_alone_is_too_large():
    """An empty window would be worse; the provider has the last word."""
    assert context.trim_oldest(long_log(3), room_bytes=10)[1:] == list(long_log(3)[-3:])


@pytest.mark.parametrize("policy", ["fail", "escalate"])
def test_a_budget_that_may_not_be_shrunk_to_fails_in_so_many_words(policy):
    """With the number of tokens, and the budget."""
    strict = agent(context_budget=ContextBudget(max_tokens=10_000, reserve_output=1_000, on_overflow=policy))
    with pytest.raises(ModelError) as caught:
        context.assemble(strict, claim_of(log=long_log(20)))
    assert caught.value.failure.kind is FailureKind.CONTEXT_OVERFLOW
    assert "10000" in caught.value.failure.detail
