"""InlineFleet: a whole fleet in one thread, without a server. It has the real store, on a Redis in this process."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context

import redis

from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.client.job_result import JobResult, result_of
from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.errors import ConfigError, ModelError
from midwatch.orchestration.keyspace import PARTITIONS, Keyspace
from midwatch.orchestration.ports import Clock, Gate, Model
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.steps.leases import Hold, LeaseKeeper
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.records import ref_of
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.testing.manual_clock import ManualClock
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import Message
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.schemas.step import Priority, StepRef
from midwatch.schemas.trace import TraceRecord

MAX_STEPS = 10_000
"""The most steps of one `run`. A test of an agent that never ends must fail, not hang."""


class FunctionModel:
    """A model that calls a function: it gets each request and returns the reply."""

    name = "function"

    def __init__(self, answer: Callable[[ModelRequest], ModelReply]) -> None:
        self._answer = answer
        self.error: Exception | None = None
        """An exception of the function other than ModelError. The fleet raises it: the test must see it, not a dead letter."""

    def complete(self, request: ModelRequest) -> ModelReply:
        """See `ports.Model`."""
        try:
            return self._answer(request)
        except ModelError:
            raise
        except Exception as error:
            self.error = error
            raise

    def count(self, request: ModelRequest) -> int | None:
        """Return None: this model has no counter."""
        return None


class UnrenewedLeases(LeaseKeeper):
    """Leases without a thread and renewals. There is no other worker, and the clock does not move during a step."""

    def __init__(self, store: RedisStore, clock: Clock) -> None:
        super().__init__(store.renew, clock, store.lease_ms)

    @contextmanager
    def hold(self, claim: Claim, at_most_ms: int) -> Iterator[Hold]:
        """See `LeaseKeeper.hold`."""
        yield Hold(claim, 0, at_most_ms)


class LocalDispatcher:
    """`ports.Dispatcher` without a broker: published steps are appended to a queue in this process."""

    def __init__(self, published: deque[StepRef]) -> None:
        self._published = published

    def publish(self, refs: Sequence[StepRef], *, begun: bool = False) -> None:
        """See `ports.Dispatcher.publish`."""
        self._published.extend(refs)

    def hand_off(self, priority: Priority) -> None:
        """Return None: scripts push no messages here."""

    def first_queue(self, priority: Priority) -> None:
        """None, as `hand_off`."""

    def message(self, ref: StepRef, *, begun: bool = False) -> bytes:
        """Empty. It is never used, because there is no hand-off."""
        return b""


class InlineFleet:
    """A fleet that enqueues and runs jobs in one thread. Use `operations` to show, decide, replay and cancel them.

    Args:
        agents: the agents of the jobs. Agents that they use as tools need not be listed.
        model: answers every model call: a `ScriptedModel`, an object with `complete`, or a function of the request.
        clock: the clock of the fleet. It moves to the time of the next deferred step, so that no test waits.
        gate: admits calls; by default every call.
        seed: of the random jitter.

    """

    def __init__(
        self,
        *agents: Agent,
        model: Model | Callable[[ModelRequest], ModelReply],
        clock: ManualClock | None = None,
        gate: Gate | None = None,
        seed: int = 0,
    ) -> None:
        self.clock = clock or ManualClock()
        self.model: Model = model if hasattr(model, "complete") else FunctionModel(model)  # type: ignore[assignment]
        self.published: deque[StepRef] = deque()
        """Published steps that have not run yet, the next one first."""
        self.client = _connect(self.clock)
        """The Redis of this fleet, for tests that check keys."""
        keys, dispatcher = Keyspace("inline"), LocalDispatcher(self.published)
        self.store = RedisStore(self.client, keys, dispatcher)
        self.operations = Operations(self.client, keys, dispatcher)
        self.runner = StepRunner(
            Services(
                store=self.store,
                agents=Registry(agents),
                model=lambda provider: self.model,
                gate=gate or OpenGate(),
                leases=UnrenewedLeases(self.store, self.clock),
                clock=self.clock,
                worker="inline",
                rng=random.Random(seed),
                request_compaction=self.published.append,
            )
        )

    def enqueue(self, agent: Agent, input: str, *, session_id: str | None = None) -> str:
        """Record a job and return its id. Nothing runs yet."""
        self.runner.services.agents.add(agent)
        job = new_job(agent, input, session_id=session_id)
        self.store.enqueue(job, on_interrupt=self.operations.cancel)
        return job.job_id

    def run(self, job_id: str) -> JobResult:
        """Run steps in the order of their publication, until the job ends or is parked for a human.

        Raises:
            ConfigError: the job did not end in 10,000 steps, or no step is left (another job is active in its session).

        """
        for _ in range(MAX_STEPS):
            job = self.store.job(job_id)
            if job.status.ended or (job.status is JobStatus.PARKED and not self._find_step()):
                return result_of(job)
            if not self._find_step() and not (self.operations.records.look() and self._find_step()):
                raise ConfigError(
                    f"job {job_id} is {job.status} and no step is left: does another job hold its session?"
                )
            ref = self.published.popleft()
            copy_context().run(self.runner.run, ref)
            if error := getattr(self.model, "error", None):
                raise error
        raise ConfigError(
            f"job {job_id} did not end in {MAX_STEPS} steps; give its agent limits=RunLimits(max_steps=...)"
        )

    def messages(self, job_id: str) -> tuple[Message, ...]:
        """The conversation of the job's session."""
        return tuple(self.operations.messages(self.store.job(job_id).session_id))

    def trace(self, job_id: str) -> Sequence[TraceRecord]:
        """The committed steps of the job."""
        return self.operations.trace(job_id)

    def _find_step(self) -> bool:
        """Return True if a step can run. If all steps wait, move the clock to the first one that is due.

        A step that is parked for a human does not move the clock: a test decides, or moves the clock to its expiry.
        """
        if self.published:
            return True
        refs, soonest_ms = self.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
        if not refs and soonest_ms >= 0 and (waits := self._soonest_not_parked()) is not None:
            self.clock.advance(max(0, waits - self.clock.monotonic_ms()))
            refs, _ = self.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
        self.published.extend(dict.fromkeys(refs))
        return bool(self.published)

    def _soonest_not_parked(self) -> int | None:
        """The time of the first step that is due, in ms, without the parked ones."""
        for entry, due_ms in self._due():
            ref = ref_of(entry)
            row = self.client.hget(self.store.keys.steps(ref.session_id, ref.job_id), ref.step)
            if isinstance(row, bytes) and not row.startswith(b"parked"):
                return due_ms
        return None

    def _due(self) -> list[tuple[bytes, int]]:
        """The entries of `due` of all partitions with their times, the first one first."""
        found: list[tuple[bytes, float]] = []
        for p in range(PARTITIONS):
            found += self.client.zrange(self.store.keys.index(p, "due"), 0, -1, withscores=True)  # type: ignore[arg-type]
        return [(entry, int(at_ms)) for entry, at_ms in sorted(found, key=lambda one: one[1])]


def _connect(clock: Clock) -> redis.Redis:
    """A new Redis in this process. The import is here, so that tests without a fleet do not load fakeredis and Lua."""
    try:
        from midwatch.orchestration.testing.in_process_redis import connect
    except ImportError as error:
        raise ConfigError(
            "a fleet in this process needs the packages fakeredis and lupa, which come with midwatch "
            f"({error}); install them: pip install 'fakeredis[lua]'"
        ) from error
    return connect(clock)
