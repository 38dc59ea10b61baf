"""The agents of the journals. They are the same under the code that recorded them and under this code."""

from __future__ import annotations

from typing import Any


def make_agents(api: Any) -> dict[str, Any]:
    """Return the agents by name. `api` has `Agent`, `tool` and the policies: the module `orchestration` or `midwatch`."""

    @api.tool(idempotent=True)
    def look_up(order: str) -> str:
        """Find an order."""
        return f"{order} is at sea"

    @api.tool(inline=True, idempotent=True)
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @api.tool(requires_approval=True)
    def refund(order: str) -> str:
        """Pay an order back."""
        return f"{order} is paid back"

    @api.tool
    def charge(order: str) -> str:
        """Charge an order."""
        return f"{order} is charged"

    ten_years = api.RunLimits(session_timeout_s=10 * 365 * 86_400)
    rules = [api.Escalation(when="unknown_effect", tools=("charge",))]
    clerk = api.Agent(
        "clerk",
        "scripted:m-1",
        "You help.",
        tools=[look_up, add, refund, charge],
        limits=ten_years,
        escalation=rules,
        retry_config=api.RetryConfig(max_retries=1, base_s=0.001, cap_s=0.001),
    )
    chief = api.Agent("chief", "scripted:m-1", "You lead.", children=[clerk], limits=ten_years)
    return {"clerk": clerk, "chief": chief}


REPLIES: dict[str, list[Any]] = {
    "queued": ["Hello."],
    "behind": ["Hello again."],
    "owed": [("look_up", {"order": "W-1"}), "W-1 is at sea."],
    "inline": [("add", {"a": 2, "b": 3}), ("look_up", {"order": "W-2"}), "Five, and at sea."],
    "refused": [("look_up", {"order": 7}), ("look_up", {"order": "W-3"}), "At sea."],
    "parked": [("refund", {"order": "W-4"}), "Paid back."],
    "rejected": [("refund", {"order": "W-5"}), "Then not."],
    "effect": [("charge", {"order": "W-6"}), "I will check."],
    "lost": [("look_up", {"order": "W-7"}), "W-7 is at sea."],
    "deferred": [None, "Late, but here."],
    "dead": [None, None, "Back."],
    "child": ["W-8 is at sea."],
    "parent": [("clerk", {"input": "Where is W-8?"}), "The clerk says: at sea."],
}
"""Scenario -> the model's replies, turn by turn: a text, a call, or None for an overloaded provider."""

RUN_BEFORE: dict[str, int] = {
    "queued": 0, "behind": 0, "owed": 1, "inline": 1, "refused": 1, "parked": 2, "rejected": 2, "effect": 1, "lost": 1,
    "deferred": 1, "dead": 2, "parent": 2, "child": 0,
}  # fmt: skip
"""The number of steps that ran under the code that recorded the journal."""
