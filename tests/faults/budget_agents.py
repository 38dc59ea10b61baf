"""A chief agent and its scouts, which share one token budget: `MIDWATCH_AGENTS=tests.faults.budget_agents`."""

from __future__ import annotations

from typing import Any

from midwatch import Agent, ContextBudget, RetryConfig, RunLimits, tool

MODEL = "anthropic:claude-sonnet-4-6"
SCOUTS = 8
LOOKS = 8
"""The turns of a scout before it reports."""
MAX_INPUT_TOKENS = 8_000
"""About half of the tokens that all scouts together would use."""
MAX_OUTPUT_TOKENS = 4_000
CALL_TIMEOUT_S = 12.0
"""Short enough that a dead worker's reservation ends within half a minute. Long enough for every call on a busy machine."""

SHARED: dict[str, Any] = {
    "context_budget": ContextBudget(max_tokens=20_000, reserve_output=120),
    "retry_config": RetryConfig(max_retries=5, base_s=0.1, cap_s=0.5),
}


@tool(idempotent=True)
def look(sector: str, times: int) -> str:
    """Look around in a sector."""
    return f"{sector}: nothing but sea ({times})"


scout = Agent(
    "scout", MODEL, "You look around and report.", [look],
    limits=RunLimits(max_steps=2 * LOOKS, call_timeout_s=CALL_TIMEOUT_S), **SHARED,
)  # fmt: skip
chief = Agent(
    "chief", MODEL, "You send scouts.", children=[scout],
    limits=RunLimits(
        max_steps=2 + 2 * LOOKS * SCOUTS, call_timeout_s=CALL_TIMEOUT_S,
        max_input_tokens=MAX_INPUT_TOKENS, max_output_tokens=MAX_OUTPUT_TOKENS,
    ),
    **SHARED,
)  # fmt: skip
