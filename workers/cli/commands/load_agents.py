"""Load the agents of `MIDWATCH_AGENTS` before anything starts. A mistake in them ends the start with one line."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from midwatch.orchestration.agents.registry import Registry
    from midwatch.workers.settings import Settings


def load_agents(current: Settings) -> Registry:
    """Import the agents.

    Raises:
        ConfigError: a module can't be imported, has no agent, declares an agent wrongly, or raises another error.

    """
    from midwatch.orchestration.errors import ConfigError
    from midwatch.workers.process.runtime import import_agents

    try:
        return import_agents(current.agents)
    except ConfigError as error:
        raise ConfigError(f"{error}{_where(error)}") from error
    except Exception as error:
        raise ConfigError(f"MIDWATCH_AGENTS: {type(error).__name__}: {error}{_where(error)}") from error


def _where(error: Exception) -> str:
    """Return the user's file and line: the innermost frame outside this package and the import machinery."""
    import midwatch

    if isinstance(error, SyntaxError):  # its message names the line already
        return ""
    ours = tuple(f"{folder}{os.sep}" for folder in midwatch.__path__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*ours, "<frozen"))]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
