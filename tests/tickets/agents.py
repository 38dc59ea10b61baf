"""The recorded tickets' tools and agents. Workers load them with `MIDWATCH_AGENTS=tests.tickets.agents`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from midwatch import Agent, ContextBudget, RetryConfig, RunLimits, ToolContext, tool
from midwatch.orchestration.tools.declaration import Tool
from midwatch.schemas.contract import canonical_json
from midwatch.validators import JSONSchemaValidator
from tests.tickets import without
from tests.tickets.ledger import Ledger
from tests.tickets.record import policy, results, tool_schemas

if os.environ.get("TICKETS_WITHOUT"):
    without.off(os.environ["TICKETS_WITHOUT"])

TOOL_MS = float(os.environ.get("TICKETS_TOOL_MS", "0"))
KEYLESS = os.environ.get("TICKETS_KEYLESS") == "1"
"""The negative control: without a stable key, the downstream can't recognize a repeated call."""
CRASH_FILE = os.environ.get("TICKETS_CRASH_FILE", "")
"""If this file is missing, a worker creates it and dies, once, after the effect and before its commit."""
DOWN_FILE = os.environ.get("TICKETS_DOWN_FILE", "")
"""While this file exists, the downstream is down and every call fails."""


def recorded_tool(schema: dict[str, Any]) -> Tool:
    """Make a tool that returns the recorded result and adds an entry to the ledger."""

    @tool(
        name=schema["name"],
        description=schema["description"],
        validator=JSONSchemaValidator(schema["parameters"]),
        idempotent=True,
        max_result_tokens=100_000,
    )
    def call(context: ToolContext, **arguments: Any) -> str:
        if DOWN_FILE and Path(DOWN_FILE).exists():
            raise ConnectionError("the order system does not answer")
        time.sleep(TOOL_MS / 2000)
        canonical = canonical_json(arguments)
        key = f"{time.time_ns()}" if KEYLESS else context.idempotency_key
        occurrence = Ledger(Path(os.environ["TICKETS_LEDGER"]), context.session_id).apply(
            key, schema["name"], canonical
        )
        if CRASH_FILE and not Path(CRASH_FILE).exists():
            Path(CRASH_FILE).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(TOOL_MS / 2000)
        recorded = results(int(context.session_id.rpartition("-")[2]))[schema["name"], canonical]
        return recorded[min(occurrence, len(recorded) - 1)]

    return call


TOOLS = [recorded_tool(schema) for schema in tool_schemas()]
POLICIES: dict[str, Any] = {
    "retry_config": RetryConfig(
        max_retries=int(os.environ.get("TICKETS_RETRIES", "8")),
        base_s=0.2,
        cap_s=2.0,
        retry_on=["rate_limited", "overloaded", "provider_error", "timeout", "connection", "tool_error"],
    ),
    "context_budget": ContextBudget(max_tokens=150_000),
    "limits": RunLimits(max_steps=60, call_timeout_s=20.0),
}

claude = Agent("tickets-anthropic", "claude-sonnet-4-6", policy(), TOOLS, **POLICIES)
gpt = Agent("tickets-openai", "gpt-5-2025-08-07", policy(), TOOLS, **POLICIES)
