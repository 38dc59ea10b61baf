"""Agents whose conversations outgrow their budget, and workers that die during a compaction.

Workers load them with `MIDWATCH_AGENTS=tests.faults.long_agents`. `LONG_DIES` names a moment: the first worker to reach it
kills itself with SIGKILL. In a worker with `LONG_AWAITS`, tools wait until another worker has reached that moment.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from typing import Any

from midwatch import Agent, ContextBudget, RunLimits, tool
from midwatch.orchestration.ports import Model
from midwatch.orchestration.steps.compaction import compaction_step
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.schemas.message import NoteMessage, Text, ToolCall, ToolMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.workers import providers
from tests.faults.journal import VARIABLE

TURNS = 12
ASKED_AT = 8
"""The turn of `early` whose commit requests a background compaction."""

BYTES_PER_TOKEN = 3

LOCK_MS = 3_000
"""How long a compaction may last in these workers. A dead worker's lock is waited for, and three seconds suffice to show it."""

if os.environ.get(VARIABLE):
    compaction_step.LOCK_MS = LOCK_MS

if "long" not in providers.names():
    providers.register("long", "tests.faults.long_agents:connect")


def result_of(number: int) -> str:
    """Return the tool's result: a text too long to keep, with the name of the next order."""
    return f"next: {number + 1}. Order W-{1000 + number}: " + "all is well with it, " * 70


def die_once(moment: str) -> None:
    """Kill this process if this is the moment, and no worker died here before."""
    if os.environ.get("LONG_DIES") != moment:
        return
    try:
        os.close(os.open(_mark(moment), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def await_death(longest_s: float = 20.0) -> None:
    """Wait until another worker has reached the moment that this worker awaits."""
    moment, give_up_s = os.environ.get("LONG_AWAITS"), time.monotonic() + longest_s
    while moment and not os.path.exists(_mark(moment)) and time.monotonic() < give_up_s:
        time.sleep(0.02)


def _mark(moment: str) -> str:
    return os.path.join(os.environ[VARIABLE], f"died-{moment}")


def _deadly(name: str) -> None:
    """Wrap a method, so that a worker can die just before it or just after it."""
    method = getattr(RedisStore, name)
    verb = name.partition("_")[0]

    def around(self: RedisStore, *args: Any, **options: Any) -> Any:
        die_once(f"before {verb}")
        done = method(self, *args, **options)
        die_once(f"after {verb}")
        return done

    setattr(RedisStore, name, around)


if os.environ.get("LONG_DIES"):  # only in a worker that a test lets die
    _deadly("begin_compaction")
    _deadly("commit_compaction")


class LongModel:
    """Looks up one order after the other, as each result says. It depends on the newest message only."""

    name = "long"

    def complete(self, request: ModelRequest) -> ModelReply:
        """See `ports.Model`."""
        usage = Usage(input_tokens=_bytes_of(request) // BYTES_PER_TOKEN, output_tokens=20)
        if request.model == "summary":
            die_once("in the summary")
            answer = {"happened": [{"text": "Orders were looked up.", "from_tool": False}], "open": []}
            return ModelReply(parts=(Text(text=json.dumps(answer)),), stop=Stop.END, usage=usage, model="summary")
        if isinstance(request.messages[0], NoteMessage):
            die_once("with a memory")
        last = request.messages[-1]
        found = re.match(r"next: (\d+)", last.content) if isinstance(last, ToolMessage) else None
        number = int(found[1]) if found else 1
        if number > TURNS:
            return ModelReply(parts=(Text(text="All done."),), stop=Stop.END, usage=usage, model="talker")
        call = ToolCall(id=f"call_{number}", name="look_up", raw_arguments=json.dumps({"number": number}))
        return ModelReply(parts=(call,), stop=Stop.TOOLS, usage=usage, model="talker")

    def count(self, request: ModelRequest) -> int | None:
        """Return None: this model has no counter."""
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _bytes_of(request: ModelRequest) -> int:
    return len(request.model_dump_json(include={"system", "messages", "tools"}).encode())


def connect(_: object) -> Model:
    """Connect the model, for the registry of providers."""
    return LongModel()


@tool(idempotent=True)
def look_up(number: int) -> str:
    """Find an order."""
    if number >= ASKED_AT:
        await_death()
    return result_of(number)


def _agent(name: str, **more: Any) -> Agent:
    budget = ContextBudget(max_tokens=6_000, reserve_output=500, **more)
    limits = RunLimits(max_steps=50, call_timeout_s=2.0)
    return Agent(name, "long:talker", "You look orders up.", tools=[look_up], context_budget=budget, limits=limits)


plain = _agent("plain")
summed_up = _agent("summed_up", summary_model="long:summary")
early = _agent("early", act_at=0.6, wait_at=1.0)
