"""Compact a session: take its lock, let a strategy plan the changes, commit them in one script.

A compaction runs in its own task while the job goes on, or inside a turn whose window is full. If two run at once, one of
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
from midwatch.orchestration.context.planning.room import Room
from midwatch.orchestration.context.strategies import STRATEGIES
from midwatch.orchestration.context.window import READERS_WEIGHT, note_weight
from midwatch.orchestration.errors import ModelError
from midwatch.orchestration.ports import Gate, Model, Store
from midwatch.orchestration.protocol.commits import Bill
from midwatch.orchestration.protocol.compactions import Compaction, CompactionWork
from midwatch.orchestration.protocol.store_replies import CompactionBusy, NothingToCompact
from midwatch.orchestration.steps.gated_calls import call_model, summary_call
from midwatch.orchestration.tokens.estimate import LEAST_PRIOR, PRIOR, Estimator
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.model import ModelReply, ModelRequest, Usage
from midwatch.schemas.step import Defer, StepRef

LOCK_MS = 15_000
"""How long the lock lasts, not counting model calls. Compacting 3 MB takes less than a second.

If a worker dies during a compaction, the next one waits at most this long, plus the time limit of one model call.
"""

REFUSED_SHARE = 0.9
"""After a request was refused as too long, this share of it is assumed to fit. Only a larger prompt is cut."""

LIMIT_SHARE = 0.97
"""Share of the budget that a compacted request may take. The estimate of a request that no report covers is off by 1 to 2 %."""

log = structlog.get_logger("midwatch.compaction")


class Compacted(StrEnum):
    """The result of an attempt to compact."""

    DONE = "done"
    BUSY = "busy"
    """Another worker is compacting the session."""
    NOTHING = "nothing"
    """There is enough room, or another job is active in the session."""
    TOO_LITTLE = "too_little"
    """Nothing more can be removed: prompt, tools and the newest group alone are too large."""


@dataclass
class Compactor:
    """One per process. Thread-safe."""

    store: Store
    model: Callable[[str], Model]
    """Returns the `Model` of a provider, by the provider's name. It writes summaries."""
    gate: Gate
    estimator: Estimator

    def run(
        self,
        ref: StepRef,
        agent: Agent,
        nonce: str,
        *,
        job_id: str = "",
        above: float,
        refused: bool = False,
        rate: float | None = None,
    ) -> Compacted:
        """Shrink the session to the budget's `shrink_to` if it is fuller than `above`, which is a share of its room.

        `above=0` ignores the estimated size. It is used when a provider refused the request as too long (`refused`), or when
        an operator requested the compaction. `rate` is the tokens per unit of weight, if the provider counted this request.

        Raises:
            StoreUnavailable: Redis can't be reached. The session is unchanged.

        """
        started_s = time.monotonic()
        work = self.store.begin_compaction(ref, nonce, job_id=job_id, lock_ms=LOCK_MS)
        if isinstance(work, NothingToCompact):
            return Compacted.NOTHING
        if isinstance(work, CompactionBusy):
            return Compacted.BUSY
        weight = weight_of(agent, work)
        rate = rate or self.estimator.known_rate(str(agent.model), work.anchor)
        room = room_of(agent, rate) if above else room_of(agent, rate, at_most=weight, refused=refused)
        if weight <= above * room.full:
            self.store.commit_compaction(work, STRATEGIES["none"].compact(work, agent, room, self.call_summarizer))
            return Compacted.NOTHING
        if not (compaction := self.compact(work, agent, room)):
            return Compacted.BUSY
        if compaction.empty:
            return Compacted.TOO_LITTLE
        if compaction.is_prompt_cut:
            log.warning("context.prompt_cut", session_id=ref.session_id, job_id=work.active_job, agent=agent.name)
        log.info(
            "compaction.done",
            session_id=ref.session_id,
            job_id=work.active_job,
            removed=len(compaction.removed),
            elided=len(compaction.replaced),
            ms=round(1_000 * (time.monotonic() - started_s)),
        )
        return Compacted.DONE

    def compact(self, work: CompactionWork, agent: Agent, room: Room) -> Compaction | None:
        """Plan the changes and commit them. None if the lock was lost.

        The commit bills what the summarizer's model used. Without a commit it is billed here, since it was paid for.
        """
        spent: list[Usage] = []

        def ask(work: CompactionWork, model: ModelName, request: ModelRequest) -> ModelReply:
            reply = self.call_summarizer(work, model, request)
            spent.append(reply.usage)
            return reply

        committed = False
        try:
            compaction = STRATEGIES[agent.context_budget.on_overflow].compact(work, agent, room, ask)
            committed = self.store.commit_compaction(work, compaction)
        finally:
            if spent and not committed:
                bill = Bill(f"compaction|{work.nonce}|{work.epoch}", sum(spent, Usage()))
                self.store.bill(work.ref, bill)
        return compaction if committed else None

    def call_summarizer(self, work: CompactionWork, model: ModelName, request: ModelRequest) -> ModelReply:
        """Call the summarizer's model once. After a ModelError, the memory is made without a model.

        Raises:
            ModelError: the gate refused the call, or the call failed.

        """
        call = summary_call(work, self.store.job(work.ref.job_id), str(model), request)
        # Extend the lock for this call only. If the worker dies, the session must not stay locked for calls not yet made.
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


def room_of(agent: Agent, rate: float | None, *, at_most: int | None = None, refused: bool = False) -> Room:
    """The budget as a weight, at `rate` tokens per unit of weight. `at_most` is the weight to shrink, if it is less than that.

    Before a report the rate is not known. Then the room is small, but only a prompt that can't fit is cut.
    """
    budget = agent.context_budget
    tokens = budget.max_tokens - budget.reserve_output
    full, limit = int(tokens / (rate or PRIOR)), int(LIMIT_SHARE * tokens / (rate or LEAST_PRIOR))
    if at_most is not None:
        full = min(full, at_most)
        limit = min(limit, int(at_most * REFUSED_SHARE)) if refused else limit
    return Room(full, int(full * budget.shrink_to) - agent.fixed_weight, limit - agent.fixed_weight - READERS_WEIGHT)


def weight_of(agent: Agent, work: CompactionWork) -> int:
    """The weight of everything that the next call would send."""
    memory = READERS_WEIGHT + note_weight(work.memory) if work.memory else 0
    return agent.fixed_weight + sum(work.weights) + memory
