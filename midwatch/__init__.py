"""Midwatch runs LLM agents on a fleet of Celery workers. Import the public names from here.

A name is loaded at its first use, so a producer's process loads neither Celery nor a provider's SDK.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from midwatch.orchestration.agents.agent import Agent
    from midwatch.orchestration.client.client import Client, connect
    from midwatch.orchestration.client.handle import JobHandle
    from midwatch.orchestration.client.job_result import JobResult
    from midwatch.orchestration.errors import ToolError
    from midwatch.orchestration.tools.context import ToolContext
    from midwatch.orchestration.tools.toolbox import tool
    from midwatch.schemas.policy import ContextBudget, Escalation, GoalContract, ModelPolicy, RetryConfig, RunLimits

_MODULES = {
    "Agent": "orchestration.agents.agent",
    "Client": "orchestration.client.client",
    "ContextBudget": "schemas.policy",
    "Escalation": "schemas.policy",
    "GoalContract": "schemas.policy",
    "JobHandle": "orchestration.client.handle",
    "JobResult": "orchestration.client.job_result",
    "ModelPolicy": "schemas.policy",
    "RetryConfig": "schemas.policy",
    "RunLimits": "schemas.policy",
    "ToolContext": "orchestration.tools.context",
    "ToolError": "orchestration.errors",
    "connect": "orchestration.client.client",
    "tool": "orchestration.tools.toolbox",
}
"""Public name -> the module that defines it."""

__all__ = [
    "Agent",
    "Client",
    "ContextBudget",
    "Escalation",
    "GoalContract",
    "JobHandle",
    "JobResult",
    "ModelPolicy",
    "RetryConfig",
    "RunLimits",
    "ToolContext",
    "ToolError",
    "connect",
    "tool",
]


def __getattr__(name: str) -> object:
    """Load a public name at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    found: object = getattr(import_module(f"midwatch.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
