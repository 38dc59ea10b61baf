"""A wait that is longer than the job may wait, from a provider, an operator or a human: no record of the job is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate

import pytest
import redis as redis_py

from midwatch import Agent, Escalation, RunLimits, tool
from midwatch.orchestration.admission.board import Board
from midwatch.orchestration.admission.redis_gate import RedisGate
from midwatch.orchestration.keyspace import Keyspace
from midwatch.schemas.job import JobStatus
from midwatch.testing import InlineFleet, ScriptedModel, call
from midwatch.workers import providers
from tests.contract.provider_requests import credentials
from tests.contract.provider_server import ProviderServer, Reply, reply

MODELS = {
    "anthropic": "anthropic:claude-sonnet-4-6",
    "openai": "openai:gpt-5-2025-08-07",
    "gemini": "gemini:gemini-2.5-pro",
}
DAY_S = 86_400
LIMITED = {"error": {"type": "rate_limit_error", "code": "rate_limit_exceeded", "message": "Slow down."}}
RETRY_INFO = {
    "error": {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "message": "Slow down.",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{40 * DAY_S}s"}],
    }
}
WAITS: dict[str, Reply] = {
    "41 days": reply(429, LIMITED, {"retry-after": "3600000"}),
    "a date in a year": reply(429, LIMITED, {"retry-after": formatdate(time.time() + 365 * DAY_S, usegmt=True)}),
    "milliseconds": reply(429, LIMITED, {"retry-after-ms": str(10**15)}),
    "overloaded": reply(503, LIMITED, {"retry-after": "3600000"}),
    "RetryInfo": reply(429, json.dumps(RETRY_INFO)),
}


@dataclass
class Stage:
    """A fleet in this process, and the gate on a server. Only the fleet's clock is moved, so that the gate's pauses never end."""

    fleet: InlineFleet
    agent: Agent
    max_wait_s: int

    def run(self) -> str:
        """Run a job to its end. No wait that is shown is longer than what is left of its time. Returns its id."""
        job_id = self.fleet.enqueue(self.agent, "go", session_id="s1")
        began_ms = self.fleet.clock.monotonic_ms()
        self.run_next()
        while not self.fleet.operations.job(job_id).status.ended:
            ((_, due_ms),) = self.fleet._due()
            assert self.fleet.clock.monotonic_ms() <= due_ms <= began_ms + self.max_wait_s * 1_000 + 1_000
            assert self.fleet._find_step()
            self.run_next()
        return job_id

    def run_next(self) -> None:
        """Run the next step."""
        self.fleet.runner.run(self.fleet.published.popleft())

    def check_records(self, job_id: str) -> None:
        """The job, its session's conversation and its letter are there. The letter names the limit."""
        assert self.fleet.operations.job(job_id).status is JobStatus.DEAD_LETTERED
        assert self.fleet.operations.messages("s1")
        letter = self.fleet.operations.dead_letter(job_id)
        assert (letter.job_id, letter.failure.limit) == (job_id, "max_wait_s")


@pytest.fixture
def vendor() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server
    providers.close()


@pytest.fixture
def gate(redis: redis_py.Redis, prefix: str) -> RedisGate:
    return RedisGate(redis, Keyspace(prefix))


def make_stage(name: str, vendor: ProviderServer, gate: RedisGate, max_wait_s: int) -> Stage:
    """Connect the vendor's real adapter to a fake server."""
    agent = Agent("clerk", MODELS[name], "You help.", limits=RunLimits(max_wait_s=max_wait_s))
    fleet = InlineFleet(agent, model=providers.load(name, credentials(vendor.url)), gate=gate)
    return Stage(fleet, agent, max_wait_s)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("max_wait_s", [120, 2_000])
def test_a_wait_beyond_the_jobs_own_ends_it_as_a_letter(
    name: str, wait: str, max_wait_s: int, vendor: ProviderServer, gate: RedisGate
) -> None:
    """The wait is shown as what is left of the job's time. Then the job ends, and all its records are there."""
    vendor.answer_all(WAITS[wait])
    stage = make_stage(name, vendor, gate, max_wait_s)
    stage.check_records(stage.run())


def test_a_months_pause_ends_a_job_as_a_letter(vendor: ProviderServer, gate: RedisGate) -> None:
    """An operator's pause is not cut, but the job looks at its own time first."""
    gate.configure(MODELS["anthropic"])
    board = Board(gate.client, gate.keys)
    board.pause(MODELS["anthropic"], 30 * DAY_S)
    stage = make_stage("anthropic", vendor, gate, max_wait_s=2_000)
    stage.check_records(stage.run())
    assert board.status()[0].paused_ms > 29 * DAY_S * 1_000


@tool
def refund(order: str) -> str:
    """Refund an order."""
    return f"{order} is refunded"


def test_an_approval_that_expires_in_sixty_days_is_kept_so_long() -> None:
    """The question is there after 59 days, and can be answered."""
    asks = Escalation(when="tool_approval", tools=["refund"], expires_s=60 * DAY_S)
    limits = RunLimits(max_wait_s=90 * DAY_S)
    agent = Agent("clerk", "scripted:m-1", "You help.", tools=[refund], escalation=[asks], limits=limits)
    fleet = InlineFleet(agent, model=ScriptedModel([[call("refund", order="A")], "Done."]))
    job_id = fleet.enqueue(agent, "go", session_id="s1")
    fleet.run(job_id)
    for _ in range(59):
        fleet.clock.advance(DAY_S * 1_000)
        fleet.operations.records.look()
    assert fleet.operations.job(job_id).status is JobStatus.PARKED
    assert fleet.operations.decide(job_id, approve=True)
    assert fleet.run(job_id).output == "Done."
    assert fleet.operations.messages("s1")
