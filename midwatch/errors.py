"""Every exception that Midwatch raises."""

from midwatch.orchestration.errors import (
    ConfigError,
    JobTimeout,
    LeaseLost,
    MidwatchError,
    ModelError,
    NoOutput,
    NotFound,
    Refused,
    RunInsideTool,
    SessionBusy,
    StoreUnavailable,
    ToolError,
    ToolFailed,
    UnknownAgent,
    UnreadableRecord,
)

__all__ = [
    "ConfigError",
    "JobTimeout",
    "LeaseLost",
    "MidwatchError",
    "ModelError",
    "NoOutput",
    "NotFound",
    "Refused",
    "RunInsideTool",
    "SessionBusy",
    "StoreUnavailable",
    "ToolError",
    "ToolFailed",
    "UnknownAgent",
    "UnreadableRecord",
]
