"""InlineFleet: a whole fleet in one thread, without a server: the real store over a Redis in this process, time by hand."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import redis

from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.client.handle import result_of
from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.errors import ConfigError, ModelError
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.ports import Clock, Gate, Model
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.steps.leases import Hold, LeaseKeeper
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.testing.manual_clock import ManualClock
from midwatch.schemas.job import JobResult, JobStatus
from midwatch.schemas.message import Message
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.schemas.step import Priority, StepRef
from midwatch.schemas.trace import TraceRecord

MAX_STEPS = 10_000
"""Steps of one `run`: an agent that never ends is a failed test, not a hanging one."""


class FunctionModel:
    """A function as a model: it is given each request and makes the reply."""

    name = "function"

    def __init__(self, answer: Callable[[ModelRequest], ModelReply]) -> None:
        self._answer = answer
        self.error: Exception | None = None
        """What the function raised, other than a ModelError: a test wants to see it, not a dead letter."""

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
        """None: it has no counter."""
        return None


class UnrenewedLeases(LeaseKeeper):
    """No thread and no renewals: no other worker could take a step here, and time stands still while it runs."""

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

    def publish(self, refs: Sequence[StepRef]) -> None:
        """See `ports.Dispatcher.publish`."""
        self._published.extend(refs)

    def hand_off(self, priority: Priority) -> None:
        """None: scripts push no messages."""

    def message(self, ref: StepRef) -> bytes:
        """Empty: it is never asked for, as there is no hand-off."""
        return b""


class InlineFleet:
    """Enqueue jobs, run them, look at what came of it, decide, replay, cancel: by `operations`, as an operator does.

    Args:
        agents: those that jobs may name; their children are known with them.
        model: answers every model call: a `ScriptedModel`, anything with `complete`, or a function of the request.
        clock: moved on to the moment when a deferred step is due, so nothing is waited for.
        gate: admission; everything is admitted by default.
        seed: of the jitter.

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
        """Steps on their way to a worker, next first."""
        self.client = _connect(self.clock)
        """The Redis of this fleet, for a test that must look at keys."""
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
        """Record a job; its id. Nothing runs yet."""
        self.runner.services.agents.add(agent)
        job = new_job(agent, input, session_id=session_id)
        self.store.enqueue(job, on_interrupt=self.operations.cancel)
        return job.job_id

    def run(self, job_id: str) -> JobResult:
        """Run steps, in the order they are published, until the job ends or is parked for a human.

        Raises:
            ConfigError: it did not end in 10,000 steps, or nothing is left to run (its session is held by another job).

        """
        for _ in range(MAX_STEPS):
            job = self.store.job(job_id)
            if job.status.ended or (job.status is JobStatus.PARKED and not self._more()):
                return result_of(job)
            if not self._more():
                raise ConfigError(
                    f"job {job_id} is {job.status} and no step is left: does another job hold its session?"
                )
            ref = self.published.popleft()
            self.runner.run(ref)
            if error := getattr(self.model, "error", None):
                raise error
        raise ConfigError(
            f"job {job_id} did not end in {MAX_STEPS} steps; give its agent limits=RunLimits(max_steps=...)"
        )

    def messages(self, job_id: str) -> tuple[Message, ...]:
        """The conversation of the job's session."""
        return tuple(self.operations.messages(self.store.job(job_id).session_id))

    def trace(self, job_id: str) -> Sequence[TraceRecord]:
        """The job's steps as they were committed."""
        return self.operations.trace(job_id)

    def _more(self) -> bool:
        """Is there a step to run? When all wait, time moves on to the first that is due."""
        if self.published:
            return True
        refs, soonest_ms = self.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
        if not refs and soonest_ms >= 0:
            self.clock.advance(soonest_ms)
            refs, _ = self.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
        self.published.extend(dict.fromkeys(refs))
        return bool(self.published)


def _connect(clock: Clock) -> redis.Redis:
    """A new Redis in this process. It is imported here: a test that uses no fleet does not pay for fakeredis and Lua."""
    try:
        from midwatch.orchestration.testing.in_process_redis import connect
    except ImportError as error:
        raise ConfigError(
            "a fleet in this process needs the packages fakeredis and lupa, which come with midwatch "
            f"({error}); install them: pip install 'fakeredis[lua]'"
        ) from error
    return connect(clock)
