"""`run_inline` and InlineFleet do what the fleet does: one scenario runs on the Redis in this process and on a server."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
import redis as redis_py

from midwatch import Agent, Escalation, tool
from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.steps.tool_step import UNKNOWN_EFFECT
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.testing.inline_fleet import LocalDispatcher, UnrenewedLeases
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import ToolMessage
from midwatch.schemas.step import StepRef
from midwatch.testing import InlineFleet, ManualClock, ScriptedModel, call
from tests.properties.contents import HOUR_MS
from tests.properties.two_servers import expire_step, new_job

ran: list[str] = []


@tool
def charge(order: str) -> str:
    """Charge an order."""
    ran.append(order)
    return f"{order} is charged"


@pytest.fixture
def agent() -> Agent:
    """Make an agent that lets a human decide on calls whose effect is unknown."""
    ran.clear()
    return Agent("clerk", "scripted:m-1", "You help.", tools=[charge], escalation=[Escalation(when="unknown_effect")])


def script() -> ScriptedModel:
    """Make a model that charges three orders in one turn and then ends."""
    return ScriptedModel([[call("charge", order=order) for order in "ABC"], "I will check."])


class ServerFleet:
    """A worker's store and step runner on a real server, without Celery. Steps run in the order in which they are published."""

    def __init__(self, client: redis_py.Redis, prefix: str, agent: Agent, model: ScriptedModel) -> None:
        self.client, self.published = client, deque[StepRef]()
        keys, dispatcher = Keyspace(prefix), LocalDispatcher(self.published)
        self.store = RedisStore(client, keys, dispatcher, lease_ms=HOUR_MS)
        self.operations = Operations(client, keys, dispatcher)
        clock = ManualClock()
        self.runner = StepRunner(
            Services(
                store=self.store,
                agents=Registry([agent]),
                model=lambda provider: model,
                gate=OpenGate(),
                leases=UnrenewedLeases(self.store, clock),
                clock=clock,
                worker="w1",
                rng=random.Random(0),
            )
        )


@pytest.fixture(params=["in_process", "redis"])
def fleet(request: pytest.FixtureRequest, agent: Agent) -> Any:
    if request.param == "in_process":
        return InlineFleet(agent, model=script())
    client, prefix = request.getfixturevalue("redis"), request.getfixturevalue("prefix")
    return ServerFleet(client, prefix, agent, script())


def run_all(fleet: Any) -> None:
    """Run every step that is published."""
    while fleet.published:
        fleet.runner.run(fleet.published.popleft())


def park_as_unknown(fleet: Any, calls: list[StepRef]) -> None:
    """Lose the workers of these calls while the tool runs. The next worker asks a human about each call."""
    fleet.runner.run(fleet.published.popleft())
    for ref in calls:
        fleet.store.claim(ref, "a worker that dies")
    for ref in calls:
        expire_step(fleet.client, fleet.store.keys, ref)
    run_all(fleet)


def test_decisions_on_unknown_effects_are_kept(fleet: Any, agent: Agent) -> None:
    """Each decision counts for its own call: a rejected call is answered with an unknown effect, an approved call runs once."""
    job = new_job("job-1", "s1", agent="clerk", agent_version=agent.version)
    fleet.store.enqueue(job)
    calls = [job.ref.call(n) for n in range(2)]
    park_as_unknown(fleet, calls)
    assert ran == ["C"]
    assert fleet.store.job("job-1").status is JobStatus.PARKED

    assert fleet.operations.decide("job-1", "1.1", approve=False, reason="too | late")
    assert not fleet.operations.decide("job-1", "1.1", approve=True), "the second decision on one call is refused"
    assert fleet.operations.decide("job-1", approve=True)
    run_all(fleet)

    assert fleet.store.job("job-1").status is JobStatus.COMPLETED
    results = [message.content for message in fleet.operations.messages("s1") if isinstance(message, ToolMessage)]
    assert results == ["A is charged", f"{UNKNOWN_EFFECT} A human decided so. too | late", "C is charged"]
    assert ran == ["C", "A"]
    effects = {record.step: record.effect for record in fleet.operations.trace("job-1") if record.outcome == "continue"}
    assert effects == {"1": None, "1.0": "done", "1.1": "unknown", "1.2": "done"}
