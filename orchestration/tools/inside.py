"""Is this code inside a tool? A producer asks it before it waits, so the answer needs no other module of the tools."""

from __future__ import annotations

from contextvars import ContextVar

INSIDE: ContextVar[bool] = ContextVar("midwatch_inside_tool", default=False)
"""True in the thread or the coroutine of a tool."""


def is_inside_tool() -> bool:
    """Does this code run in a tool's thread or coroutine? There, code must not wait for the fleet."""
    return INSIDE.get()
