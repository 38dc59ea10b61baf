"""A fleet with faults: messages arrive several times and in any order, and workers die at their writes.

The step machine, the tools and the stores are the real ones. Time passes only when the test says so.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import redis as redis_py

from midwatch import Agent, ToolContext, tool
from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.keyspace import PARTITIONS, Keyspace
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.records import ref_of
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.testing.inline_fleet import UnrenewedLeases
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.message import AssistantMessage
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.schemas.step import StepRef
from midwatch.testing import ScriptedModel, call
from tests.properties.contents import HOUR_MS
from tests.properties.two_servers import Recorder, Stopped, expire_step

WRITES = ("claim", "commit_turn", "commit_results", "finish", "defer")

SCRIPT = [
    [
        call("look_up", order="A-17"),
        call("charge", order="A-17"),
        call("note", text="charged"),
        call("note", text="twice"),
    ],
    [call("charge", order="B-2"), call("look_up", order="B-2")],
    "Both orders are charged.",
]


class WorkerDied(BaseException):
    """Simulates `kill -9`. It is a BaseException, so the code of a step does not catch it."""


class Mortal:
    """A store that kills its worker at given writes, just before the write or just after it."""

    def __init__(self, store: Any, deaths: set[tuple[int, bool]]) -> None:
        self._store = store
        self._deaths = deaths
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in WRITES:
            return method

        def dying(*args: Any, **options: Any) -> Any:
            number, self.writes = self.writes, self.writes + 1
            if (number, False) in self._deaths:
                raise WorkerDied
            answer = method(*args, **options)
            if (number, True) in self._deaths:
                raise WorkerDied
            return answer

        return dying


class World:
    """Everything outside the fleet: a model that answers by the conversation, and a count of side effects."""

    current: World
    """The world of the fleet that runs now. The tools change it. Fleets run one after the other."""

    def __init__(self) -> None:
        World.current = self
        self.asked: Counter[int] = Counter()
        self.effects: Counter[tuple[str, str, str]] = Counter()
        self.meanwhile: Callable[[], None] = lambda: None

    name = "scripted"

    def complete(self, request: ModelRequest) -> ModelReply:
        """Return the scripted reply of the turn."""
        turn = sum(isinstance(message, AssistantMessage) for message in request.messages)
        self.asked[turn] += 1
        self.meanwhile()
        return ScriptedModel([SCRIPT[turn]]).complete(request)

    def count(self, request: ModelRequest) -> int | None:
        """Return None: this model has no counter."""
        return None

    def take_effect(self, tool: str, context: ToolContext) -> None:
        """Count an effect of a tool. Other workers may go on meanwhile."""
        self.effects[tool, context.step_id, context.idempotency_key] += 1
        self.meanwhile()


@tool(idempotent=True)
def look_up(order: str, context: ToolContext) -> str:
    """Find an order. This tool may be repeated."""
    World.current.take_effect("look_up", context)
    return f"{order} is open"


@tool
def charge(order: str, context: ToolContext) -> str:
    """Charge an order. This tool may not be repeated."""
    World.current.take_effect("charge", context)
    return f"{order} is charged"


@tool(inline=True)
def note(text: str, context: ToolContext) -> str:
    """Write a note. This tool runs inline."""
    World.current.take_effect("note", context)
    return "noted"


AGENT = Agent("clerk", "scripted:m-1", "You charge orders.", tools=[look_up, charge, note])
"""Declared once for all runs, because declaring its tools takes a third of the time of a run."""


class Messages(Recorder):
    """The network. Each published message arrives `copies` times."""

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.copies = copies
        self.queue: deque[StepRef] = deque()

    def publish(self, refs: Sequence[StepRef], *, begun: bool = False) -> None:
        for ref in refs:
            self.queue.extend([ref] * self.copies)


class BadFleet:
    """A fleet with one store. Its messages are repeated, and its workers die."""

    def __init__(
        self, lent: tuple[redis_py.Redis, str], *, copies: int = 1, deaths: set[tuple[int, bool]], seed: int = 0
    ) -> None:
        self.world = World()
        self.network = Messages(copies)
        self.random = random.Random(seed)
        self.losses = 0
        self._depth = 0
        self.client, prefix = lent
        self.keys = Keyspace(prefix)
        self.store = RedisStore(self.client, self.keys, self.network, lease_ms=HOUR_MS)
        self.operations = Operations(self.client, self.keys, self.network)
        self.leases = UnrenewedLeases(self.store, Stopped())
        self.mortal = Mortal(self.store, deaths)
        self.runner = self.hire()

    def hire(self) -> StepRunner:
        """Start a worker in place of one that died. It has the same name, as after a restart of a container."""
        return StepRunner(
            Services(
                store=self.mortal,  # type: ignore[arg-type]
                agents=Registry([AGENT]),
                model=lambda provider: self.world,
                gate=OpenGate(),
                leases=self.leases,
                clock=Stopped(),
                worker="box-1.7",
                rng=self.random,
            )
        )

    def run(self) -> Job:
        """Run one job to its end. After 500 deliveries the job counts as hanging."""
        job = new_job(AGENT, "Charge A-17 and B-2.", job_id="job-1", session_id="s1")
        self.store.enqueue(job)
        for _ in range(500):
            status = self.store.job("job-1").status
            if status is JobStatus.DEAD_LETTERED:
                self.operations.replay("job-1")
            elif status.ended and not self.network.queue:
                return self.store.job("job-1")
            if not self.deliver():
                self.pass_time()
        raise AssertionError(f"job-1 hangs: {self.store.job('job-1')}")

    def deliver(self) -> bool:
        """Deliver one message from a random place in the queue. Returns False if the queue is empty."""
        if not self.network.queue:
            return False
        self.network.queue.rotate(self.random.randrange(len(self.network.queue)))
        ref = self.network.queue.popleft()
        try:
            self.runner.run(ref)
        except WorkerDied:
            if self._depth:
                raise  # this delivery runs inside another worker's step, and that worker dies too
            self.losses += 1
            self.runner = self.hire()
        return True

    def deliver_meanwhile(self) -> None:
        """Deliver up to two messages to other workers while a model call or a tool runs."""
        if self._depth == 0:
            self._depth += 1
            try:
                for _ in range(self.random.randrange(3)):
                    self.deliver()
            finally:
                self._depth -= 1

    def pass_time(self) -> None:
        """End every lease, let every due time come, and publish what a steward finds."""
        pipe = self.client.pipeline(transaction=False)
        for p in range(PARTITIONS):
            pipe.zrange(self.keys.index(p, "due"), 0, -1)
        for entries in pipe.execute():
            for entry in entries:
                expire_step(self.client, self.keys, ref_of(entry))
        refs, _ = self.operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
        self.network.publish(list(dict.fromkeys(refs)))
