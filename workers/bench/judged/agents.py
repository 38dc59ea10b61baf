"""The agents of `bench judged`: one for each vendor. A job is one call."""

from __future__ import annotations

from midwatch import Agent

PROMPT = "You answer support questions in one sentence."

anthropic = Agent("judged-anthropic", "claude-sonnet-4-6", PROMPT)
openai = Agent("judged-openai", "gpt-5-2025-08-07", PROMPT)

BY_VENDOR = {"anthropic": anthropic, "openai": openai}
