"""The model that answers in `midwatch dev` if a key is not set. It calls each tool once, and says that it is simulated."""

from __future__ import annotations

from midwatch.workers.simulator import Conversation, Say, Use
from midwatch.workers.simulator.brains.rules import each_tool_once

MOST_CHARS = 200
"""Most characters of a tool's result that the answer repeats."""


def answer(conversation: Conversation) -> Say | Use:
    """Call each offered tool once, then say what they returned. An answer with a schema is an example value."""
    found = each_tool_once(conversation)
    if isinstance(found, Use) or conversation.output_schema is not None:
        return found
    results = [turn for turn in conversation.since_user if turn.role == "tool"]
    said = "; ".join(f"{turn.tool} returned: {turn.text[:MOST_CHARS]}" for turn in results)
    return Say(f"[simulated answer, no vendor was called] {said or 'No tool was offered.'}")
