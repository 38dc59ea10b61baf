"""The agents that this process has loaded from `MIDWATCH_AGENTS`, by name."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.errors import ConfigError, UnknownAgent


class Registry:
    """Agents by name. Two different agents of the same name are refused at load time, not at a later step."""

    def __init__(self, agents: Iterable[Agent] = ()) -> None:
        self._agents: dict[str, Agent] = {}
        for agent in agents:
            self.add(agent)

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents.values())

    def __contains__(self, name: object) -> bool:
        return name in self._agents

    def add(self, agent: Agent) -> None:
        """Add an agent and its children."""
        known = self._agents.get(agent.name)
        if known is not None and known.version != agent.version:
            raise ConfigError(f"two different agents are named {agent.name!r}; rename one of them")
        self._agents[agent.name] = agent
        for child in agent.children:
            self.add(child)

    def find(self, name: str) -> Agent:
        """The agent of that name.

        Raises:
            UnknownAgent: this process has not loaded an agent of that name.

        """
        agent = self._agents.get(name)
        if agent is None:
            close = difflib.get_close_matches(name, self._agents, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"loaded: {', '.join(sorted(self._agents)) or 'none'}"
            raise UnknownAgent(
                f"no agent {name!r} is loaded here; {hint}. Set MIDWATCH_AGENTS to the module that defines it"
            )
        return agent


def load_agents(specs: Iterable[str]) -> Registry:
    """Load agents from `module` (all agents in it) or `module:attribute` (one agent, or a list of them).

    The working directory is put first on the import path, as `celery -A` does.

    Raises:
        ConfigError: a module can't be imported, or holds no agent.

    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    registry = Registry()
    for spec in specs:
        module_name, _, attribute = spec.strip().partition(":")
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise ConfigError(f"MIDWATCH_AGENTS: can't import {module_name!r}: {error}") from error
        found = [getattr(module, attribute, None)] if attribute else list(vars(module).values())
        flat = [item for value in found for item in (value if isinstance(value, (list, tuple)) else (value,))]
        agents = [item for item in flat if isinstance(item, Agent)]
        if not agents:
            raise ConfigError(f"MIDWATCH_AGENTS: {spec!r} holds no Agent; expected `module` or `module:attribute`")
        for agent in agents:
            registry.add(agent)
    return registry
