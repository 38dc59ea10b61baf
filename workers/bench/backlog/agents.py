"""The agents of `bench backlog`: a model that takes a while, and a tool that answers at once or takes a while, too."""

from __future__ import annotations

import os
import time
from pathlib import Path

from midwatch import Agent, RunLimits, tool
from midwatch.orchestration.ports import Model
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.workers import providers
from midwatch.workers.bench.backlog.plan import Plan
from midwatch.workers.bench.steps.zero_model import ZeroModel

PLAN = Plan.model_validate_json(os.environ.get(Plan.VARIABLE, "{}"))


class SlowModel(ZeroModel):
    """Takes a fixed time for each call, and adds one byte to a file for each: the provider's bill."""

    def complete(self, request: ModelRequest) -> ModelReply:
        """See `ports.Model`."""
        time.sleep(PLAN.call_s)
        with Path(PLAN.bill).open("a") as bill:
            bill.write(".")
        return super().complete(request)


def connect(_: object) -> Model:
    """Return the model. The registry of providers calls this."""
    return SlowModel()


if "backlog" not in providers.names():
    providers.register("backlog", "midwatch.workers.bench.backlog.agents:connect")


@tool(idempotent=True, inline=PLAN.tool_s == 0)
def search(query: str, status: str) -> str:
    """Search support tickets by keyword and status."""
    time.sleep(PLAN.tool_s)
    return f"{query}: {status}"


LIMITS = RunLimits(max_steps=10_000, session_timeout_s=PLAN.session_timeout_s)
agent = Agent("backlog", "backlog:slow", "You search tickets.", [search], limits=LIMITS)
