"""Agents: the definition, the names of models, and the agents that a process has loaded."""
