"""Compact a session: begin under its lock, plan by a strategy, commit in one script.

A compaction runs as its own task while the job goes on, or within a turn that has no room left. If two run at once, one of
them does nothing: the lock and the epoch let only one commit.
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
from midwatch.orchestration.steps.gated_calls import call_model, summary_call
from midwatch.orchestration.tokens.estimate import BOUNDS, PRIOR
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.schemas.step import Defer, StepRef

LOCK_MS = 15_000
"""How long a compaction may take, without its model calls: 3 MB take under a second. A compaction that dies delays the next
one by at most this long, and by the bound on one call if it died during a call."""

log = structlog.get_logger("midwatch.compaction")


class Compacted(StrEnum):
    """The result of an attempt to compact."""

    DONE = "done"
    BUSY = "busy"
    """Another worker compacts the session."""
    NOTHING = "nothing"
    """There is room, or another job has the session by now."""
    TOO_LITTLE = "too_little"
    """Nothing more can be freed: prompt, tools and the newest group alone are too large."""


@dataclass
class Compactor:
    """One per process. Thread-safe."""

    store: Store
    model: Callable[[str], Model]
    """The model port of a provider, for summaries by a model."""
    gate: Gate

    def run(self, ref: StepRef, agent: Agent, nonce: str, *, job_id: str = "", above: float) -> Compacted:
        """Shrink the session to the budget's `shrink_to` if it is fuller than `above`, a share of its room.

        With `above=0` the estimate of its size does not count: a provider found it too long, or an operator wants it.

        Raises:
            StoreUnavailable: Redis is away. The session is unchanged.

        """
        started_s = time.monotonic()
        work = self.store.begin_compaction(ref, nonce, job_id=job_id, lock_ms=LOCK_MS)
        if isinstance(work, NothingToCompact):
            return Compacted.NOTHING
        if isinstance(work, CompactionBusy):
            return Compacted.BUSY
        weight = weight_of(agent, work)
        room = room_of(agent, work) if above else room_of(agent, work, at_most=weight)
        if weight <= above * room.full:
            self.store.commit_compaction(work, STRATEGIES["none"].compact(work, agent, room, self.call_summarizer))
            return Compacted.NOTHING
        compaction = STRATEGIES[agent.context_budget.on_overflow].compact(work, agent, room, self.call_summarizer)
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
            ms=round(1_000 * (time.monotonic() - started_s)),
        )
        return Compacted.DONE

    def call_summarizer(self, work: CompactionWork, model: ModelName, request: ModelRequest) -> ModelReply:
        """Make one call of the summarizer's model. If the gate refuses it, the memory is written without the model."""
        call = summary_call(work, self.store.job(work.ref.job_id), str(model), request)
        # Prolong the lock for this call only: a worker that dies in it must not hold the session for later calls.
        self.store.begin_compaction(work.ref, work.nonce, lock_ms=LOCK_MS + call.lasts_ms)
        refusal = self.gate.admit(call)
        if refusal is not None:
            why = refusal.reason if isinstance(refusal, Defer) else refusal.detail
            raise ModelError(Failure(kind=FailureKind.RATE_LIMITED, detail=why), sent=False)
        reply, report = call_model(lambda: self.model(model.provider), request, self.gate, call)
        self.gate.settle(call, report)
        if isinstance(reply, Failure):
            raise ModelError(reply)
        return reply


def room_of(agent: Agent, work: CompactionWork, at_most: int | None = None) -> Room:
    """The budget as a weight, at the rate that the provider charged this session's last call. At most `at_most`."""
    budget, anchor = agent.context_budget, work.anchor
    rate = PRIOR
    if anchor is not None and anchor.weight and anchor.model == str(agent.model):
        rate = min(BOUNDS[1], max(BOUNDS[0], anchor.tokens / anchor.weight))
    full = (budget.max_tokens - budget.reserve_output) / rate
    full = full if at_most is None else min(full, at_most)
    return Room(full=int(full), target=int(full * budget.shrink_to) - agent.fixed_weight)


def weight_of(agent: Agent, work: CompactionWork) -> int:
    """The weight of all that is sent now."""
    return agent.fixed_weight + sum(work.weights) + (note_weight(work.memory) if work.memory else 0)
