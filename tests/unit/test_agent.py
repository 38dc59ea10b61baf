"""Agent: a wrong declaration raises where it is made."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from midwatch import Agent, ContextBudget, Escalation, GoalContract, ModelPolicy, RetryConfig, RunLimits, tool
from midwatch.orchestration.errors import ConfigError


@tool(idempotent=True)
def look_up(order: str) -> str:
    """Find an order."""
    return order


@tool
def pay(order: str) -> str:
    """Pay for an order."""
    return order


class Answer(BaseModel):
    days: int


def agent(**fields):
    return Agent(**{"name": "clerk", "model": "claude-sonnet-4-6", "system_prompt": "You help.", **fields})


def test_a_minimal_agent_has_sensible_policies():
    """Name, model and prompt are enough."""
    made = Agent("clerk", "claude-sonnet-4-6", "You help.")
    assert (made.model.provider, made.model.model) == ("anthropic", "claude-sonnet-4-6")
    assert (made.limits.max_steps, made.retry_config.max_retries) == (50, 3)
    assert made.system == "You help."


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "a clerk"}, "agent name"),
        ({"name": ""}, "agent name"),
        ({"system_prompt": " "}, "system_prompt"),
        ({"model": "claude-3-5-sonnet-latest"}, "allow_alias"),
        ({"fallback_models": ["gpt-5"]}, "allow_alias"),
        ({"tools": [print]}, "@tool"),
        ({"tools": [look_up, look_up]}, "look_up"),
        ({"limits": {"max_steps": 3}}, "limits: expected a RunLimits"),
        ({"retry_config": 3}, "retry_config: expected a RetryConfig"),
        ({"context_budget": {"max_tokens": 5_000}}, "context_budget: expected a ContextBudget"),
        ({"goal": "win"}, "goal: expected a GoalContract"),
        ({"model_policy": True}, "model_policy: expected a ModelPolicy"),
        ({"output_schema": "json"}, "output_schema"),
        ({"output_schema": {"type": "array"}}, "output_schema: schema /type"),
        ({"output_schema": {"type": "object", "required": 3}}, "output_schema"),
        ({"tool": [look_up]}, "did you mean 'tools'"),
        ({"temperature": 0}, "unknown keyword 'temperature'"),
    ],
)
def test_a_wrong_declaration_is_refused_with_advice(fields, says):
    """It is refused before the first job, not at a later step."""
    with pytest.raises(ConfigError, match=says):
        agent(**fields)


def test_a_moving_model_name_needs_allow_alias():
    """The model policy allows it."""
    assert agent(model="gpt-5", model_policy=ModelPolicy(allow_alias=True)).model.provider == "openai"


@pytest.mark.parametrize(
    "change",
    [
        {"system_prompt": "You help well."},
        {"model": "claude-opus-4-6"},
        {"tools": [look_up]},
        {"limits": RunLimits(max_steps=51)},
        {"retry_config": RetryConfig(max_retries=4)},
        {"context_budget": ContextBudget(max_tokens=100_000)},
        {"goal": GoalContract(objective="win")},
        {"escalation": [Escalation(when="repeated_failure")]},
        {"output_schema": Answer},
        {"fallback_models": ["gpt-5-2025-08-07"]},
    ],
)
def test_every_change_is_a_new_version_and_nothing_else_is(change):
    """A job keeps the version with which it began, so the version must cover everything."""
    assert agent().version == agent().version
    assert agent(**change).version != agent().version


def test_children_are_offered_as_tools():
    """They have a default description or the author's."""
    scout = Agent("scout", "claude-sonnet-4-6", "You scout.")
    assert [one.child for one in agent(children=[scout]).tools] == ["scout"]
    described = agent(tools=[scout.as_tool("Finds things.")], children=[scout])
    assert [(one.name, one.description) for one in described.tools] == [("scout", "Finds things.")]


def test_an_escalation_applies_to_all_tools_or_the_named_ones():
    """Other calls need no human."""
    rules = [Escalation(when="tool_approval", tools=("look_up",)), Escalation(when="unknown_effect")]
    careful = agent(tools=[look_up, pay], escalation=rules)
    assert careful.asks_human("tool_approval", "look_up")
    assert not careful.asks_human("tool_approval", "refund")
    assert careful.asks_human("unknown_effect", "anything")
    assert not careful.asks_human("drift")
