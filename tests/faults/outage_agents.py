"""An agent whose model is called over HTTP, for outages of Redis: `MIDWATCH_AGENTS=tests.faults.outage_agents`."""

from __future__ import annotations

from midwatch import Agent, RunLimits, tool


@tool(idempotent=True)
def log(entry: str) -> str:
    """Write an entry into the log."""
    return f"written: {entry}"


keeper = Agent(
    "keeper",
    "anthropic:claude-sonnet-4-6",
    "Keep the log.",
    [log],
    limits=RunLimits(
        max_steps=12, call_timeout_s=3.0
    ),  # short, so that an unsettled reservation ends within half a minute
)
