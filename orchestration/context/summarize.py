"""Choose the summarizer: the extractive one, or the model of the budget with the extractive one as its fallback."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.model_names import ModelName
from midwatch.orchestration.context.summary_by_model import ModelSummarizer, Summary
from midwatch.orchestration.context.summary_extractive import ExtractiveSummarizer
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.protocol.compactions import CompactionWork
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message
from midwatch.schemas.model import ModelReply, ModelRequest

log = get_logger("midwatch.compaction")

Ask = Callable[[CompactionWork, ModelName, ModelRequest], ModelReply]
"""Calls the summarizer's model, with the gate's admission. Raises ModelError."""


def summarize(
    work: CompactionWork, gone: Sequence[Message], room_bytes: int, *, agent: Agent, live: Sequence[Message], ask: Ask
) -> Summary:
    """Make the memory after `gone` left the window. The result also has the usage of the summarizer's model."""
    memory, model = work.memory or Memory(), agent.summary_model
    if model is None:
        return Summary(ExtractiveSummarizer().summarize(memory, gone, room_bytes, live=live, pinned=agent.system))
    by_model = ModelSummarizer(
        lambda request: ask(work, model, request),
        model.model,
        input_tokens=max(2_000, min(24_000, agent.context_budget.max_tokens // 2)),
        timeout_s=agent.limits.call_timeout_s,
    )
    done = by_model.summarize(memory, gone, room_bytes, live=live, pinned=agent.system)
    if done.fell_back:
        log.warning("compaction.fell_back", session_id=work.ref.session_id, model=str(model), why=done.fell_back)
    return done
