"""Agents whose conversations outgrow their budget, and workers that die in a compaction of one.

Workers load it: `MIDWATCH_AGENTS=tests.faults.long_agents`.

`LONG_DIES` names the moment at which the first worker to come there kills itself with SIGKILL; in a worker with `LONG_AWAITS`
tools take as long as it takes another to come to that moment.
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
from midwatch.orchestration.steps import compaction_step
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.schemas.message import NoteMessage, Text, ToolCall, ToolMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.workers import providers
from tests.faults.journal import VARIABLE

TURNS = 12
ASKED_AT = 8
"""The turn whose commit sets off a compaction beside `early`."""

BYTES_PER_TOKEN = 3

LOCK_MS = 3_000
"""Of a compaction, in these workers: a dead one's lock is waited for, and fifteen seconds teach nothing more than three."""

if os.environ.get(VARIABLE):
    compaction_step.LOCK_MS = LOCK_MS

if "long" not in providers.names():
    providers.register("long", "tests.faults.long_agents:connect")


def result_of(number: int) -> str:
    """What the tool returns: too much to carry along, and what to look at next."""
    return f"next: {number + 1}. Order W-{1000 + number}: " + "all is well with it, " * 70


def die_once(moment: str) -> None:
    """The first who comes here dies, if this is the moment."""
    if os.environ.get("LONG_DIES") != moment:
        return
    try:
        os.close(os.open(_mark(moment), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def await_death(longest_s: float = 20.0) -> None:
    """Until another worker has come to the moment that this one awaits."""
    moment, give_up_s = os.environ.get("LONG_AWAITS"), time.monotonic() + longest_s
    while moment and not os.path.exists(_mark(moment)) and time.monotonic() < give_up_s:
        time.sleep(0.02)


def _mark(moment: str) -> str:
    return os.path.join(os.environ[VARIABLE], f"died-{moment}")


def _deadly(name: str) -> None:
    """The real method, and a moment before and after it."""
    method = getattr(RedisStore, name)
    verb = name.partition("_")[0]

    def around(self: RedisStore, *args: Any, **options: Any) -> Any:
        die_once(f"before {verb}")
        done = method(self, *args, **options)
        die_once(f"after {verb}")
        return done

    setattr(RedisStore, name, around)


if os.environ.get("LONG_DIES"):  # in a worker that is to die; nowhere else
    _deadly("begin_compaction")
    _deadly("commit_compaction")


class LongModel:
    """Looks orders up, one after the other, as each result says. Deterministic: the newest message alone decides."""

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
        """Nothing to count with."""
        return None

    def close(self) -> None:
        """Nothing to close."""


def _bytes_of(request: ModelRequest) -> int:
    return len(request.model_dump_json(include={"system", "messages", "tools"}).encode())


def connect(_: object) -> Model:
    """For the registry of providers."""
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
