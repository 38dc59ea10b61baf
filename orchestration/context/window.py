"""Assemble the request of one model call: system prompt, tools, the session's memory, and the live messages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.context.recall import RECALL
from midwatch.orchestration.context.render import render
from midwatch.orchestration.drift.ladder import Offer, usual_offer
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.tokens.weight import weigh
from midwatch.orchestration.tools.result_pages import READ_RESULT
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message, NoteMessage
from midwatch.schemas.model import ModelRequest
from midwatch.schemas.tools import ToolSpec


def assemble(agent: Agent, claim: Claim, offer: Offer | None = None) -> ModelRequest:
    """Assemble the request of this turn. The same claim and offer always give the same request.

    The offer differs from the agent's own if the model's last calls were refused: see `ladder`.

    Between two compactions each request begins with the bytes of the one before, so that a prompt cache can hit.
    """
    offer = offer or usual_offer(agent)
    tools = (*offer.tools, *runtime_tools(claim))
    messages: Sequence[Message] = claim.log
    if claim.memory:
        messages = (NoteMessage(group=claim.memory.through_group, text=note(claim.memory)), *messages)
    # Every part was validated when it was made. A second validation would cost more with every turn.
    return ModelRequest.model_construct(
        model=offer.model.model,
        system=agent.system,
        messages=tuple(messages),
        tools=tools,
        max_output_tokens=max_output_tokens(agent, claim),
        timeout_s=agent.limits.call_timeout_s,
        output_schema=offer.output_schema,
        cache_key=claim.ref.session_id,
    )


def runtime_tools(claim: Claim) -> tuple[ToolSpec, ...]:
    """The tools that read originals. They are offered if there is something to read."""
    return ((READ_RESULT,) if "results" in claim.flags else ()) + ((RECALL,) if claim.memory else ())


def max_output_tokens(agent: Agent, claim: Claim) -> int:
    """Most output tokens of the call: the reserve of the budget, or the rest of the job's own limit."""
    reserve, ceiling = agent.context_budget.reserve_output, agent.limits.max_output_tokens
    return reserve if ceiling is None else max(1, min(reserve, ceiling - claim.job.usage.output_tokens))


def weight_of(agent: Agent, claim: Claim) -> int:
    """Weight of the whole request: prompt, goal, tools, memory, messages."""
    readers = sum(_TOOL_WEIGHTS[tool.name] for tool in runtime_tools(claim))
    return agent.fixed_weight + readers + claim.log_weight + (note_weight(claim.memory) if claim.memory else 0)


_TOOL_WEIGHTS = {tool.name: weigh(tool.model_dump_json()) for tool in (READ_RESULT, RECALL)}
READERS_WEIGHT = sum(_TOOL_WEIGHTS.values())
"""Weight of both tools that read originals. A call that follows a compaction has them."""


_notes: OrderedDict[int, tuple[Memory, str, int]] = OrderedDict()
_KEPT = 64
"""Number of rendered notes that a worker caches. A note is long, and changes only at a compaction."""


def note(memory: Memory) -> str:
    """The memory as text, rendered once for each memory."""
    return _cached_note(memory)[1]


def note_weight(memory: Memory) -> int:
    """The weight of a memory's note."""
    return _cached_note(memory)[2]


def _cached_note(memory: Memory) -> tuple[Memory, str, int]:
    known = _notes.get(id(memory))
    if known is not None and known[0] is memory:
        return known
    text = render(memory)
    noted = _notes[id(memory)] = (memory, text, weigh(text))
    while len(_notes) > _KEPT:
        try:
            _notes.popitem(last=False)
        except KeyError:  # another thread emptied it
            break
    return noted
