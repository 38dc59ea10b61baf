"""A fleet in one thread on a real server, for tests of lineages: the real store, the coordinator, the client and the steps."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any

import redis as redis_py

from midwatch import Agent
from midwatch.orchestration.admission.redis_gate import RedisGate
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.client.client import Client
from midwatch.orchestration.client.handle import JobHandle
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.ports import Gate
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.testing.inline_fleet import LocalDispatcher
from midwatch.schemas.job import Job
from midwatch.schemas.message import Text, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.schemas.step import StepRef
from midwatch.workers.bench.context.replay import UnrenewedLeases
from midwatch.workers.process.runtime import SystemClock

MODEL = "scripted:m-1"
LEASE_MS = 60_000

Turn = str | Sequence[tuple[str, dict[str, Any]]]
"""What the model does in one turn: an answer, or calls."""


class PlayedModel:
    """A model that plays one list of turns for each input. The turn after the last is an answer."""

    name = "scripted"

    def __init__(self) -> None:
        self.plays: dict[str, Sequence[Turn]] = defaultdict(list)
        self.requests: list[ModelRequest] = []
        self.tokens = (10, 5)
        """Input and output tokens of each call."""

    def complete(self, request: ModelRequest) -> ModelReply:
        self.requests.append(request)
        text = next(one.text for one in request.messages if isinstance(one, UserMessage))
        turn = sum(one.role == "assistant" for one in request.messages)
        play = self.plays[text]
        does = play[turn] if turn < len(play) else "Done."
        if isinstance(does, str):
            return self._reply((Text(text=does),), Stop.END)
        calls = [
            ToolCall(id=f"c{turn}_{n}", name=name, raw_arguments=json.dumps(arguments))
            for n, (name, arguments) in enumerate(does)
        ]
        return self._reply(tuple(calls), Stop.TOOLS)

    def count(self, request: ModelRequest) -> None:
        return None

    def _reply(self, parts: Any, stop: Stop) -> ModelReply:
        usage = Usage(input_tokens=self.tokens[0], output_tokens=self.tokens[1])
        return ModelReply(parts=parts, stop=stop, usage=usage, model="m-1")


class Fleet:
    """A client and a worker in one thread."""

    def __init__(
        self, redis: redis_py.Redis, prefix: str, *agents: Agent, gate: Callable[[Gate], Gate] = lambda gate: gate
    ):
        self.keys = Keyspace(prefix)
        self.published: deque[StepRef] = deque()
        dispatcher = LocalDispatcher(self.published)
        self.store = RedisStore(redis, self.keys, dispatcher, lease_ms=LEASE_MS)
        self.operations = Operations(redis, self.keys, dispatcher)
        self.client = Client(self.store, self.operations)
        self.model = PlayedModel()
        self.clock = SystemClock()
        self.gate = gate(RedisGate(redis, self.keys, sleep_ms=self.clock.sleep_ms))
        leases = UnrenewedLeases(self.store.renew, self.clock, LEASE_MS)
        self.services = Services(
            self.store, Registry(list(agents)), lambda provider: self.model, self.gate, leases, self.clock, "w1"
        )
        self.runner = StepRunner(self.services)

    def enqueue(self, agent: Agent | str, text: str, *turns: Turn, **options: Any) -> JobHandle:
        """Enqueue a job. Its model plays the turns."""
        self.model.plays[text] = turns
        return self.client.enqueue(agent, text, **options)

    def run(self, until: Callable[[], object] = lambda: False, most: int = 500) -> None:
        """Run published steps until none is left, or until a condition holds."""
        for _ in range(most):
            if until() or not self.published:
                return
            self.runner.run(self.published.popleft())
        raise AssertionError(f"{most} steps ran, and {len(self.published)} are left")

    def whole_lineage(self, root: JobHandle) -> list[Job]:
        """All jobs of a lineage, the oldest first."""
        found = [job for job in self.client.jobs.list(limit=1_000) if job.root_id == root.id]
        return sorted(found, key=lambda job: (job.depth, job.created_ms))

    def told(self, job: Job) -> list[str]:
        """The results of the job's calls, as its model read them."""
        messages = self.operations.messages(job.session_id)
        return [one.content for one in messages if isinstance(one, ToolMessage)]
