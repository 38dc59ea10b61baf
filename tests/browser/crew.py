"""Agents for the tests of Flower, with `MIDWATCH_AGENTS=tests.browser.crew`, and the scripted model server that they use."""

from __future__ import annotations

from midwatch import Agent, ContextBudget, RetryConfig, tool
from midwatch.workers.simulator import Faults, ModelServer, ScriptBrain, Use
from midwatch.workers.simulator.faults.faults import Fault


@tool(idempotent=True)
def look(where: str) -> str:
    """Look out.

    Args:
        where: a direction.
    """
    return f"Nothing but water {where}."


@tool(idempotent=True)
def fire(at: str) -> str:
    """Fire the gun.

    Args:
        at: what to hit.
    """
    raise ConnectionError("the powder is wet")


sailor = Agent(
    name="sailor",
    model="claude-sonnet-4-6",
    system_prompt="You keep watch.",
    tools=[look, fire],
    retry_config=RetryConfig(
        base_s=0.2, jitter="none", fail_hard_on=("tool_error", "connection"), retry_on=("rate_limited",)
    ),
    context_budget=ContextBudget(max_tokens=32_000),
)


def model_server() -> ModelServer:
    """A model that looks or fires as the user says. The first call of every job gets a 429 once."""
    brain = ScriptBrain(
        by_conversation={
            "look": [Use([("look", {"where": "north"})]), "No land."],
            "fire": [Use([("fire", {"at": "the moon"})])],
        }
    )
    return ModelServer(brain, faults=Faults(at_turn={1: (Fault.RATE_LIMITED,)}, retry_after_s=0))
