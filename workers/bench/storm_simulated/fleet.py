"""The coordinated fleet: every call goes through the real gate, on a real server, in simulated time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import redis

from midwatch.orchestration.admission.board import Board
from midwatch.orchestration.admission.redis_gate import RedisGate
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.protocol.calls import Call, Report
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.steps.retry import decide
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.limits import Limits
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.step import DeadLetter, Defer, StepRef
from midwatch.workers.bench.storm_simulated.clockwork import SIMULATED
from midwatch.workers.bench.storm_simulated.figures import Path, Progress
from midwatch.workers.bench.storm_simulated.provider import Answer, Provider
from midwatch.workers.bench.storm_simulated.scenarios import Load
from midwatch.workers.bench.storm_simulated.simulation import Process, Resume, Simulation, Slots

DOWNSTREAM = "simulated:model"
RETRY = RetryConfig(max_retries=6)
LASTS_MS = 35_000
"""Longest duration of a call. A call to a hanging provider is given up after 30 s."""

TICK_MS = (50, 500)
"""Shortest and longest time between two sweeps of a steward. Between them the coordinator's reply decides."""


@dataclass
class CoordinatedFleet:
    """Workers that ask the gate before each call. While a call waits, its slot is free; a steward wakes it."""

    load: Load
    simulation: Simulation
    provider: Provider
    slots: Slots
    progress: Progress
    rng: random.Random
    client: redis.Redis
    keys: Keyspace
    limits: Limits
    _held_ms: int = 0
    _asleep: dict[str, tuple[int, Resume]] = field(default_factory=dict)
    """Job -> number of its current sleep, and a function that ends it."""
    _sleeps: int = 0

    def __post_init__(self) -> None:
        self.gate = RedisGate(
            self.client, self.keys, {DOWNSTREAM: self.limits}, version=1, sleep_ms=self._hold, library=SIMULATED
        )
        self.board = Board(self.client, self.keys, SIMULATED)
        self.simulation.start(self._run_steward())

    def run_subtree(self, path: Path) -> Process[bool]:
        """Run a call and the calls below it. Returns False if one of them failed permanently."""
        if not (yield from self._call(path)):
            return False
        if len(path) > self.load.depth:
            return True
        children = [self.run_subtree((*path, child)) for child in range(self.load.children)]
        return (yield from self.simulation.run_together(children))

    def _call(self, path: Path) -> Process[bool]:
        """Run the step of one logical call again and again, until it succeeds or is given up."""
        job, attempt, fence = make_job(path), 0, 0
        while True:
            yield self.slots.take
            fence += 1
            outcome = yield from self._attempt(Call(make_claim(job, attempt, fence), DOWNSTREAM, LASTS_MS))
            self.slots.give_back()
            if outcome is None:
                self.progress.count_success(path, self.simulation.now_s)
                return True
            if not isinstance(outcome, Defer):
                return False
            attempt += outcome.counts_as_attempt
            yield from self._wait(job.job_id, outcome)

    def _attempt(self, call: Call) -> Process[Defer | DeadLetter | Failure | None]:
        """Run one attempt as a worker does. Returns None if the call was answered."""
        self._held_ms = 0
        self.progress.decisions += 1
        if refusal := self.gate.admit(call):
            return refusal
        yield self._held_ms / 1_000
        answer = self.provider.call()
        yield answer.latency_s
        failure = to_failure(answer)
        self.progress.decisions += 1
        settled = self.gate.settle(call, Report(failure=failure, latency_ms=int(answer.latency_s * 1_000)))
        return decide(RETRY, failure, call.claim.attempt, self.rng, settled) if failure else None

    def _hold(self, ms: int) -> None:
        self._held_ms = ms

    def _wait(self, job_id: str, defer: Defer) -> Process[None]:
        """Wait as a deferred step does: until its time, or until a steward wakes it in a line."""
        self._sleeps += 1
        number = self._sleeps

        def wait(resume: Resume) -> None:
            self._asleep[job_id] = (number, resume)
            self.simulation.call_later(defer.after_ms / 1_000, self._time_out, job_id, number)

        yield wait

    def _time_out(self, job_id: str, number: int) -> None:
        if self._asleep.get(job_id, (0,))[0] == number:
            self._asleep.pop(job_id)[1]()

    def _wake(self, refs: Sequence[StepRef]) -> list[StepRef]:
        """Wake the steps that are asleep. Returns them."""
        woken = [ref for ref in refs if ref.job_id in self._asleep]
        for ref in woken:
            self._asleep.pop(ref.job_id)[1]()
        return woken

    def _run_steward(self) -> Process[None]:
        """Run one steward. A real fleet has one in every worker, so this is the slowest case."""
        while True:
            _, more_ms = self.board.release(self._wake)
            lowest, highest = TICK_MS
            yield (min(highest, max(lowest, more_ms)) if more_ms >= 0 else highest) / 1_000


def make_job(path: Path) -> Job:
    """Make the job whose only model turn makes the call."""
    name = "-".join(map(str, path))
    above = "-".join(map(str, path[:-1]))
    parent = StepRef(job_id=f"job-{above}", session_id=f"session-{above}", step="1.0") if above else None
    return Job(
        job_id=f"job-{name}",
        agent="storm",
        agent_version="1",
        session_id=f"session-{name}",
        root_id=f"job-{path[0]}",
        parent=parent,
        status=JobStatus.RUNNING,
        max_steps=1,
        created_ms=0,
    )


def make_claim(job: Job, attempt: int, fence: int) -> Claim:
    """Make the claim of the job's step."""
    ref = StepRef.model_construct(job_id=job.job_id, session_id=job.session_id, step="1", priority=job.priority)
    return Claim(ref, fence, "", 0, job, attempt, losses=0, interrupted=False, ending="")


def to_failure(answer: Answer) -> Failure | None:
    """Return the failure that a provider adapter would make from the answer."""
    if answer.failure is None:
        return None
    retry_after_ms = None if answer.retry_after_s is None else answer.retry_after_s * 1_000
    return Failure(kind=answer.failure, detail="simulated", retry_after_ms=retry_after_ms)
