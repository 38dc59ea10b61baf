"""Load the agents of `MIDWATCH_AGENTS` before anything starts. A mistake in them ends the start with one line."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from midwatch.orchestration.agents.agent import Agent
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


def find_missing(current: Settings, agents: Iterable[Agent]) -> dict[str, list[str]]:
    """Return the variables that are not set, each with the names of the agents whose models need it."""
    from midwatch.workers.providers.credentials import Credentials

    credentials = Credentials.from_settings(current)
    missing: dict[str, list[str]] = {}
    for agent in agents:
        models = (*agent.all_models, agent.summary_model) if agent.summary_model else agent.all_models
        variables = (credentials.find_missing(model.provider) for model in models)
        for variable in dict.fromkeys(filter(None, variables)):
            missing.setdefault(variable, []).append(agent.name)
    return missing


def _where(error: Exception) -> str:
    """Return the user's file and line: the innermost frame outside this package and the import machinery."""
    import midwatch

    if isinstance(error, SyntaxError):  # its message names the line already
        return ""
    ours = tuple(f"{folder}{os.sep}" for folder in midwatch.__path__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*ours, "<frozen"))]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
