"""The version of an agent with the code of its tools. A redrive waits for a new one if the letter's cause is in the code."""

from __future__ import annotations

import inspect
from functools import lru_cache
from hashlib import sha256

from midwatch.orchestration.agents.agent import Agent


@lru_cache(maxsize=1_000)
def code_version(agent: Agent) -> str:
    """The agent's version, and a hash of the modules in which its tools are defined.

    `Agent.version` does not change if only the body of a tool is mended. This value does. It does not change with a library
    that a tool imports.
    """
    sources = sorted({_source_of(tool.function) for tool in agent.tools if tool.child is None})
    return f"{agent.version}.{sha256(''.join(sources).encode(errors='surrogatepass')).hexdigest()[:8]}"


def _source_of(function: object) -> str:
    """The source of the function's module. If there is none, the source of the function, or its name."""
    for what in (inspect.getmodule(function), function):
        try:
            return inspect.getsource(what)  # type: ignore[arg-type]  # raises TypeError for what has no source
        except (OSError, TypeError):
            continue
    return getattr(function, "__qualname__", "")
