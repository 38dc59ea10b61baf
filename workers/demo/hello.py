"""The agent that `midwatch dev` runs if MIDWATCH_AGENTS is not set."""

from __future__ import annotations

from midwatch import Agent, tool


@tool(idempotent=True, inline=True)
def word_count(text: str) -> int:
    """Count the words of a text.

    Args:
        text: What to count.
    """
    return len(text.split())


hello = Agent("hello", "claude-sonnet-4-6", "You answer briefly. Use word_count when asked to count.", [word_count])
