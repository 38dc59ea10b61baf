"""Replay one transcript in a real session: embedded server, RedisStore and StepRunner. Only the model is recorded.

Each recorded job is enqueued in the same session. Its steps run here one after the other, in the order in which they are
published. Deferred steps run when they are due. A compaction that a turn starts runs between its tool calls and the next
turn, as on a separate worker. So every window is exactly the window that a worker would send.
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
from midwatch.workers.bench.context.recorded_jobs import NO_SYSTEM, RecordedJob, make_tools, split_jobs
from midwatch.workers.bench.context.recorded_model import REPLAYED, RecordedModel
from midwatch.workers.bench.context.transcripts import PROVIDER, Transcript
from midwatch.workers.bench.context.windows import Budget, CallFigures
from midwatch.workers.bench.measure import kept_bytes
from midwatch.workers.process.runtime import SystemClock

SESSION = "replayed"
KEYS = Keyspace("benchcontext")
LIMITS = RunLimits(max_steps=100_000, session_timeout_s=86_400.0)
LEASE_MS = 3_600_000
MAX_STEPS = 200_000
MAX_WAIT_MS = 60_000
"""Longest wait for a deferred step. No step of a replay has a reason to wait longer."""


@dataclass(frozen=True)
class Summarizer:
    """The writer of summaries. Without a model no summary is written, and the memory has only the facts."""

    model: str | None = None
    """Value of `ContextBudget.summary_model`."""
    provider: Model | None = None
    """Model port for `model`. None: the recorded model is used as a stand-in."""


@dataclass
class ReplayResult:
    """The result of replaying one transcript."""

    rows: list[CallFigures]
    redis_peak_bytes: int
    unused_turns: int
    """Recorded model turns that were not used, because their job ended earlier."""
    endings: list[str] = field(default_factory=list)
    """The endings of jobs that did not complete."""


class Queue:
    """`ports.Dispatcher` inside one process. Published steps run next."""

    def __init__(self) -> None:
        self.steps: deque[StepRef] = deque()

    def hand_off(self, priority: Priority) -> tuple[str, str] | None:
        """Return None: there is no hand-off."""
        return None

    def first_queue(self, priority: Priority) -> str | None:
        """Return None: there is no hand-off."""
        return None

    def message(self, ref: StepRef, *, begun: bool = False) -> bytes:
        """Return nothing: only a commit with hand-off needs the message."""
        return b""

    def publish(self, refs: Sequence[StepRef], *, begun: bool = False) -> None:
        """See `ports.Dispatcher.publish`."""
        self.steps.extend(refs)


class UnrenewedLeases(LeaseKeeper):
    """Leases that are not renewed. They are longer than any step, and no other worker could claim a step."""

    @contextmanager
    def hold(self, claim: Claim, at_most_ms: int) -> Iterator[Hold]:
        """See `LeaseKeeper.hold`."""
        yield Hold(claim, 0, at_most_ms)


class Replay:
    """One session on an empty server.

    Args:
        client: a connection to the server.
        transcript: the recorded conversation.
        budget: the budget of a call.
        counter: counts tokens.
        summarizer: writes the summaries.

    """

    def __init__(
        self, client: redis.Redis, transcript: Transcript, budget: Budget, counter: TokenCounter, summarizer: Summarizer
    ) -> None:
        self.client = client
        self.jobs = split_jobs(transcript)
        self.queue = Queue()
        store = RedisStore(client, KEYS, self.queue, lease_ms=LEASE_MS)
        self.store, self.operations = store, Operations(client, KEYS, self.queue)
        system = transcript.system if transcript.system.strip() else NO_SYSTEM
        self.model = RecordedModel(counter, budget, system, self.compactions)
        self.agent = Agent(
            "replayed",
            f"{PROVIDER}:{REPLAYED}",
            system,
            make_tools(transcript, self.model.result),
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
                leases=UnrenewedLeases(store.renew, clock, store.lease_ms),
                clock=clock,
                worker="bench",
                request_compaction=lambda ref: self.queue.publish((ref,)),
            )
        )
        self.peak_bytes = 0

    def run(self) -> ReplayResult:
        """Run all jobs to their ends.

        Raises:
            MidwatchError: a job has not ended, and has no step left to run.

        """
        endings = [ending for number, job in enumerate(self.jobs, 1) if (ending := self._run_job(f"job-{number}", job))]
        turns = sum(len(job.turns) for job in self.jobs)
        return ReplayResult(self.model.rows, self.peak_bytes, max(0, turns - len(self.model.rows)), endings)

    def compactions(self) -> int:
        """Return how often the session was compacted."""
        count: Any = self.client.hget(KEYS.session(SESSION), "compactions")
        return int(count or 0)

    def _run_job(self, job_id: str, recorded: RecordedJob) -> str:
        """Run one job. Returns '' if it completed, else its ending. Other jobs are cancelled, so the session goes on."""
        self.model.begin(recorded)
        self.store.enqueue(new_job(self.agent, recorded.input, job_id=job_id, session_id=SESSION))
        for _ in range(MAX_STEPS):
            if self.queue.steps:
                self._run_step(self.queue.steps.popleft())
                continue
            job = self.operations.job(job_id)
            if job.status is JobStatus.COMPLETED:
                return ""
            if job.status.ended or job.status is JobStatus.PARKED:
                self.operations.cancel(job_id)
                failure = f"{job.failure.kind}: {job.failure.detail}" if job.failure else ""
                return f"{job_id}: {job.status} {failure}".strip()
            if not self._publish_due():
                break
        raise MidwatchError(
            f"replay: {job_id} has not ended and has no step left to run; this is a bug, please report it"
        )

    def _run_step(self, ref: StepRef) -> None:
        """Run one step. Its time is added to the row of the latest call."""
        self.model.at(ref)
        own_s, began_s = self.model.own_s, time.perf_counter()
        self.runner.run(ref)
        took_ms = 1_000 * (time.perf_counter() - began_s - (self.model.own_s - own_s))
        if self.model.rows:
            self.model.rows[-1].ms += took_ms
        self.peak_bytes = max(self.peak_bytes, kept_bytes(self.client, f"{KEYS.prefix}:*"))

    def _publish_due(self) -> bool:
        """Publish deferred steps that are due. Wait for them if necessary. Returns False if there are none."""
        refs, soonest_ms = self.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
        if not refs and 0 <= soonest_ms <= MAX_WAIT_MS:
            self.clock.sleep_ms(soonest_ms + 1)
            refs, _ = self.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
        self.queue.publish(refs)
        return bool(refs)
