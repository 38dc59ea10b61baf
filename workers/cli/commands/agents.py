"""The agents of `MIDWATCH_AGENTS`, loaded before anything starts: a mistake in them ends the boot, in one line."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from midwatch.orchestration.agents.registry import Registry
    from midwatch.workers.settings import Settings


def load_agents(current: Settings) -> Registry:
    """Import them.

    Raises:
        ConfigError: a module can't be imported, holds no agent, declares one wrongly, or raises anything else.

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
    """The user's own line: the innermost frame that is neither this package's nor the import machinery's."""
    import midwatch

    if isinstance(error, SyntaxError):  # says it itself
        return ""
    ours = tuple(f"{folder}{os.sep}" for folder in midwatch.__path__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*ours, "<frozen"))]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
