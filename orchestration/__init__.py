"""The policies. What users import: Agent, tool, the policies, connect."""

from __future__ import annotations

import schemas as _schemas

if getattr(_schemas, "DISTRIBUTION", None) != "midwatch":
    _where = list(getattr(_schemas, "__path__", [])) or [str(getattr(_schemas, "__file__", "an unknown place"))]
    raise ImportError(
        f"'schemas' was imported from {_where}, which is not Midwatch's: another package of that name shadows it. "
        "Rename your own `schemas` package or module, or take it off the import path of workers and producers"
    )

from orchestration.agent import Agent
from orchestration.client import Client, connect
from orchestration.errors import ToolError
from orchestration.handle import JobHandle
from orchestration.tools import ToolContext, tool
from schemas.job import JobResult
from schemas.policy import ContextBudget, Escalation, GoalContract, ModelPolicy, RetryConfig, RunLimits

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
