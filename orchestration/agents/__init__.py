"""Agents: how one is defined, how its model is named, and which agents a process has loaded."""
