"""Agents for outages of a provider: `MIDWATCH_AGENTS=tests.faults.provider_outage_agents`."""

from __future__ import annotations

from typing import Any

from midwatch import Agent, ContextBudget, RetryConfig, RunLimits, tool
from midwatch.validators import JSONSchemaValidator


@tool(idempotent=True)
def log(entry: str) -> str:
    """Write an entry into the log."""
    return f"written: {entry}"


watchman = Agent(
    "watchman",
    "anthropic:claude-sonnet-4-6",
    "Keep the log.",
    [log],
    limits=RunLimits(max_steps=12, call_timeout_s=3.0, session_timeout_s=6.0),
)
"""Its time is far shorter than the outages of the tests."""

visitor = Agent(
    "visitor",
    "anthropic:claude-sonnet-4-6",
    "Keep the log.",
    [log],
    retry_config=RetryConfig(redrive="manual"),
    limits=RunLimits(max_steps=12, call_timeout_s=3.0, session_timeout_s=6.0, max_wait_s=30.0),
)
"""It waits for 30 seconds at most, and its letters are replayed by hand."""


@tool(
    name="search_tickets",
    description="Search support tickets by keyword and status",
    validator=JSONSchemaValidator(
        {
            "type": "object",
            "properties": {"query": {"type": "string"}, "status": {"type": "string"}},
            "required": ["query"],
        }
    ),
    idempotent=True,
)
def search_tickets(query: str, status: str = "open") -> list[dict[str, Any]]:
    """Find one ticket."""
    return [{"query": query, "status": status}]


example = Agent(
    name="support-triage-v2",
    model="claude-sonnet-4-6",
    system_prompt="Triage support tickets.",
    tools=[search_tickets],
    retry_config=RetryConfig(
        max_retries=3,
        backoff_factor=2.0,
        retry_on=["tool_error", "format_error"],  # type: ignore[arg-type]
        fail_hard_on=["context_overflow", "auth_error"],  # type: ignore[arg-type]
    ),
    context_budget=ContextBudget(max_tokens=120_000, on_overflow="summarize_and_trim"),
)
"""The example of the README's surface: its `retry_on` names no transient kind."""
