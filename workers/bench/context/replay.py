"""Play one transcript through a real session: embedded server, RedisStore, StepRunner; only the model is recorded.

Each recorded job is enqueued in the same session and its steps are run here, one after the other, as they are published;
what is put back is swept up when it is due. A compaction that a turn sets off runs between its tool calls and the next
turn, as it would on a worker of its own. So what a call is sent is exactly what a worker would send.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.errors import MidwatchError
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.ports import Model
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.steps.leases import Hold, LeaseKeeper
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.schemas.job import JobStatus
from midwatch.schemas.policy import ContextBudget, RunLimits
from midwatch.schemas.step import Priority, StepRef
from midwatch.workers.bench.context.counting import TokenCounter
from midwatch.workers.bench.context.recorded_model import REPLAYED, RecordedModel
from midwatch.workers.bench.context.screenplay import NO_SYSTEM, PlayedJob, jobs_of, tools_of
from midwatch.workers.bench.context.transcripts import PROVIDER, Transcript
from midwatch.workers.bench.context.windows import Budget, CallRow
from midwatch.workers.bench.measure import kept_bytes
from midwatch.workers.process.runtime import SystemClock

SESSION = "replayed"
KEYS = Keyspace("benchcontext")
LIMITS = RunLimits(max_steps=100_000, session_timeout_s=86_400.0)
LEASE_MS = 3_600_000
MAX_STEPS = 200_000
MAX_WAIT_MS = 60_000
"""Longest wait for a step that was put back: nothing here has a reason to wait longer."""


@dataclass(frozen=True)
class Summarizer:
    """Who writes the summary of what is compacted. Without a model: nobody, the ledger alone stays."""

    model: str | None = None
    """For `ContextBudget.summary_model`."""
    provider: Model | None = None
    """Answers for `model`; None: the recorded model stands in."""


@dataclass
class Played:
    """What came of one transcript."""

    rows: list[CallRow]
    redis_peak_bytes: int
    unplayed: int
    """Recorded model turns that were never asked for, because their job ended before."""
    endings: list[str] = field(default_factory=list)
    """Of jobs that did not complete: how they ended."""


class Queue:
    """`ports.Dispatcher` of one process: what is published is run next."""

    def __init__(self) -> None:
        self.steps: deque[StepRef] = deque()

    def hand_off(self, priority: Priority) -> tuple[str, str] | None:
        """See `ports.Dispatcher.hand_off`: never."""
        return None

    def message(self, ref: StepRef) -> bytes:
        """Never asked for without hand-off."""
        return b""

    def publish(self, refs: Sequence[StepRef]) -> None:
        """See `ports.Dispatcher.publish`."""
        self.steps.extend(refs)


class Unrenewed(LeaseKeeper):
    """Leases without a thread to renew them: nobody else could take a step here, and they outlast any step."""

    @contextmanager
    def hold(self, claim: Claim, at_most_ms: int) -> Iterator[Hold]:
        """See `LeaseKeeper.hold`."""
        yield Hold(claim, 0, at_most_ms)


class Replay:
    """One session on one server, which must be empty.

    Args:
        client: a connection to the server.
        transcript: what is said.
        budget: what a call may hold.
        counter: counts it.
        summarizer: of the compactions.

    """

    def __init__(
        self, client: redis.Redis, transcript: Transcript, budget: Budget, counter: TokenCounter, summarizer: Summarizer
    ) -> None:
        self.client = client
        self.jobs = jobs_of(transcript)
        self.queue = Queue()
        store = RedisStore(client, KEYS, self.queue, lease_ms=LEASE_MS)
        self.store, self.operations = store, Operations(client, KEYS, self.queue)
        system = transcript.system if transcript.system.strip() else NO_SYSTEM
        self.model = RecordedModel(counter, budget, system, self.compactions)
        self.agent = Agent(
            "replayed",
            f"{PROVIDER}:{REPLAYED}",
            system,
            tools_of(transcript, self.model.result),
            limits=LIMITS,
            context_budget=ContextBudget(
                max_tokens=budget.max_tokens, reserve_output=budget.reserve_tokens, summary_model=summarizer.model
            ),
        )
        clock = SystemClock()
        self.clock = clock
        self.runner = StepRunner(
            Services(
                store=store,
                agents=Registry([self.agent]),
                model=lambda provider: self.model if provider == PROVIDER else summarizer.provider or self.model,
                gate=OpenGate(),
                leases=Unrenewed(store.renew, clock, store.lease_ms),
                clock=clock,
                worker="bench",
                request_compaction=lambda ref: self.queue.publish((ref,)),
            )
        )
        self.peak_bytes = 0

    def run(self) -> Played:
        """All jobs, to their ends.

        Raises:
            MidwatchError: a job neither ended nor had a step left to run.

        """
        endings = [ending for number, job in enumerate(self.jobs, 1) if (ending := self._play(f"job-{number}", job))]
        turns = sum(len(job.turns) for job in self.jobs)
        return Played(self.model.rows, self.peak_bytes, max(0, turns - len(self.model.rows)), endings)

    def compactions(self) -> int:
        """Of the session so far, as the session says."""
        count: Any = self.client.hget(KEYS.session(SESSION), "compactions")
        return int(count or 0)

    def _play(self, job_id: str, played: PlayedJob) -> str:
        """One job; '' when it completed, else how it ended. A dead letter is given up, so that the session goes on."""
        self.model.begin(played)
        self.store.enqueue(new_job(self.agent, played.input, job_id=job_id, session_id=SESSION))
        for _ in range(MAX_STEPS):
            if self.queue.steps:
                self._step(self.queue.steps.popleft())
                continue
            job = self.operations.job(job_id)
            if job.status is JobStatus.COMPLETED:
                return ""
            if job.status.ended or job.status is JobStatus.PARKED:
                self.operations.cancel(job_id)
                failure = f"{job.failure.kind}: {job.failure.detail}" if job.failure else ""
                return f"{job_id}: {job.status} {failure}".strip()
            if not self._due():
                break
        raise MidwatchError(
            f"replay: {job_id} has not ended and no step of it is left to run; this is a bug, report it"
        )

    def _step(self, ref: StepRef) -> None:
        """Run one step, on the account of the latest call."""
        self.model.at(ref)
        own_s, began_s = self.model.own_s, time.perf_counter()
        self.runner.run(ref)
        took_ms = 1_000 * (time.perf_counter() - began_s - (self.model.own_s - own_s))
        if self.model.rows:
            self.model.rows[-1].ms += took_ms
        self.peak_bytes = max(self.peak_bytes, kept_bytes(self.client, f"{KEYS.prefix}:*"))

    def _due(self) -> bool:
        """Publish what was put back and is due, waiting for it if need be. False: there is nothing."""
        refs, soonest_ms = self.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
        if not refs and 0 <= soonest_ms <= MAX_WAIT_MS:
            self.clock.sleep_ms(soonest_ms + 1)
            refs, _ = self.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
        self.queue.publish(refs)
        return bool(refs)
