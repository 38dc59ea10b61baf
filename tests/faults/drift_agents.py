"""A clerk that books orders, with room for a long conversation: `MIDWATCH_AGENTS=tests.faults.drift_agents`."""

from __future__ import annotations

from midwatch import Agent, ContextBudget, RunLimits, tool

MODEL = "openai:gpt-5-2025-08-07"


@tool(inline=True, idempotent=True)
def book(order_id: str, amount: int) -> str:
    """Book an amount.

    Args:
        order_id: Which order.
        amount: In cents.

    """
    if not isinstance(order_id, str) or type(amount) is not int:  # the schema must prevent this
        return f"corrupt: {order_id!r} {amount!r}"
    return f"booked {order_id}: {amount}"


clerk = Agent(
    "clerk", MODEL, "Book four orders.", [book],
    limits=RunLimits(max_steps=30), context_budget=ContextBudget(max_tokens=200_000),
)  # fmt: skip
