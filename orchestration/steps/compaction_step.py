"""Compaction of a session: begun under its lock, planned by a strategy, committed in one script.

Beside the running job as a task of its own, or awaited by a turn that has no room left: the same code, and two at once do
one's work, for the lock and the epoch let only one of them commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import structlog

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.model_names import ModelName
from midwatch.orchestration.context.strategies import STRATEGIES, Room
from midwatch.orchestration.context.window import note_weight
from midwatch.orchestration.errors import ModelError
from midwatch.orchestration.ports import Gate, Model, Store
from midwatch.orchestration.protocol.compactions import CompactionWork
from midwatch.orchestration.protocol.store_replies import CompactionBusy, NothingToCompact
from midwatch.orchestration.steps.gated_calls import asked, summary_call
from midwatch.orchestration.tokens.estimate import BOUNDS, PRIOR
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.schemas.step import Defer, StepRef

LOCK_MS = 15_000
"""How long a compaction may take, beside its calls of a model: 3 MB take under a second. One that dies delays the next by this
at the most (and by the bound on one call, when it died in one)."""

log = structlog.get_logger("midwatch.compaction")


class Compacted(StrEnum):
    """What an attempt to compact came to."""

    DONE = "done"
    BUSY = "busy"
    """Someone else is at it."""
    NOTHING = "nothing"
    """There is room, or the session is another job's now."""
    TOO_LITTLE = "too_little"
    """Nothing more can be freed: prompt, tools and the newest group alone are too large."""


@dataclass
class Compactor:
    """One per process. Thread-safe."""

    store: Store
    model: Callable[[str], Model]
    """The provider of a name, for summaries by a model."""
    gate: Gate

    def run(self, ref: StepRef, agent: Agent, nonce: str, *, job_id: str = "", above: float) -> Compacted:
        """Shrink the session to the budget's `shrink_to`, when it is fuller than `above` (a share of its room).

        With 0 it is shrunk whatever we think of its size: a provider found it too long, or an operator says so.

        Raises:
            StoreUnavailable: Redis is away; the old state stands.

        """
        began_s = time.monotonic()
        work = self.store.begin_compaction(ref, nonce, job_id=job_id, lock_ms=LOCK_MS)
        if isinstance(work, NothingToCompact):
            return Compacted.NOTHING
        if isinstance(work, CompactionBusy):
            return Compacted.BUSY
        weight = weight_of(agent, work)
        room = room_of(agent, work) if above else room_of(agent, work, most=weight)
        if weight <= above * room.full:
            self.store.commit_compaction(work, STRATEGIES["none"].compact(work, agent, room, self.ask))
            return Compacted.NOTHING
        compaction = STRATEGIES[agent.context_budget.on_overflow].compact(work, agent, room, self.ask)
        if not self.store.commit_compaction(work, compaction):
            return Compacted.BUSY
        if compaction.empty:
            return Compacted.TOO_LITTLE
        log.info(
            "compaction.done",
            session_id=ref.session_id,
            job_id=work.active_job,
            removed=len(compaction.removed),
            elided=len(compaction.replaced),
            ms=round(1_000 * (time.monotonic() - began_s)),
        )
        return Compacted.DONE

    def ask(self, work: CompactionWork, model: ModelName, request: ModelRequest) -> ModelReply:
        """One call of the summarizer's model. It waits for nobody: refused now, the memory is written without it."""
        call = summary_call(work, self.store.job(work.ref.job_id), str(model), request)
        # For this call, not for all there may be: a worker that dies in the first must not hold the session for them.
        self.store.begin_compaction(work.ref, work.nonce, lock_ms=LOCK_MS + call.lasts_ms)
        refusal = self.gate.admit(call)
        if refusal is not None:
            why = refusal.reason if isinstance(refusal, Defer) else refusal.detail
            raise ModelError(Failure(kind=FailureKind.RATE_LIMITED, detail=why), sent=False)
        reply, report = asked(lambda: self.model(model.provider), request, self.gate, call)
        self.gate.settle(call, report)
        if isinstance(reply, Failure):
            raise ModelError(reply)
        return reply


def room_of(agent: Agent, work: CompactionWork, most: int | None = None) -> Room:
    """The budget as a weight, at the rate the provider charged this session's last call; `most` at the most."""
    budget, anchor = agent.context_budget, work.anchor
    rate = PRIOR
    if anchor is not None and anchor.weight and anchor.model == str(agent.model):
        rate = min(BOUNDS[1], max(BOUNDS[0], anchor.tokens / anchor.weight))
    full = (budget.max_tokens - budget.reserve_output) / rate
    full = full if most is None else min(full, most)
    return Room(full=int(full), target=int(full * budget.shrink_to) - agent.fixed_weight)


def weight_of(agent: Agent, work: CompactionWork) -> int:
    """Weight of all that is sent now."""
    return agent.fixed_weight + sum(work.weights) + (note_weight(work.memory) if work.memory else 0)
