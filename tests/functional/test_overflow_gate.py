"""A step that asks the coordinator more than once: for a turn that is retried after an overflow, and for its summaries."""

from __future__ import annotations

import json

import redis as redis_py

from midwatch import Agent, ContextBudget, tool
from midwatch.orchestration.admission.redis_gate import RedisGate
from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.limits import Limits
from midwatch.schemas.message import Text
from midwatch.schemas.model import ModelReply, Stop, Usage
from midwatch.testing import ScriptedModel, call
from midwatch.workers.bench.context.replay import UnrenewedLeases
from midwatch.workers.process.runtime import SystemClock
from tests.properties.two_servers import Recorder, new_job


@tool(inline=True, idempotent=True)
def look_up(order: str) -> str:
    """Find an order."""
    return f"Order {order}: " + "all is well with it, " * 70


class Both(ScriptedModel):
    """The agent's scripted model and a summarizer that always answers, in one."""

    def complete(self, request):
        if request.model != "s-1":
            return super().complete(request)
        text = json.dumps({"happened": [{"text": "Orders were looked up.", "from_tool": False}], "open": []})
        usage = Usage(input_tokens=500, output_tokens=20)
        return ModelReply(parts=(Text(text=text),), stop=Stop.END, usage=usage, model="s-1")


def test_a_turn_that_is_sent_twice_is_admitted_and_settled_twice(redis: redis_py.Redis, prefix: str) -> None:
    """The call that overflows, the summary that makes room, and the second call: no reservation remains."""
    keys, sent = Keyspace(prefix), Recorder()
    store = RedisStore(redis, keys, sent, lease_ms=60_000)
    budget = ContextBudget(max_tokens=30_000, reserve_output=500, summary_model="scripted:s-1")
    agent = Agent("clerk", "scripted:m-1", "You help.", tools=[look_up], context_budget=budget)
    looks = [call("look_up", order=f"W-{n}") for n in range(6)]
    model = Both([*looks, FailureKind.CONTEXT_OVERFLOW, "All done."])
    clock = SystemClock()
    limits = {"scripted:m-1": Limits(rpm=6_000), "scripted:s-1": Limits(rpm=6_000)}
    runner = StepRunner(
        Services(
            store=store,
            agents=Registry([agent]),
            model=lambda provider: model,
            gate=RedisGate(redis, keys, limits, 1, sleep_ms=clock.sleep_ms),
            leases=UnrenewedLeases(store.renew, clock, 60_000),
            clock=clock,
            worker="w1",
        )
    )
    job = new_job("job-1", "s1", agent="clerk")
    store.enqueue(job)
    for turn in range(1, 8):
        runner.run(job.ref.model_turn(turn))
    model.assert_done()
    operations = Operations(redis, keys, sent)
    found = operations.job("job-1")
    assert (found.status, found.output, found.retries) == (JobStatus.COMPLETED, "All done.", 0)
    memory = operations.memory("s1")
    assert memory is not None
    assert memory.summary == "Orders were looked up."
    for name in limits:
        assert redis.hlen(keys.downstream(name)[1]) == 0, f"a call of {name} is still reserved"
