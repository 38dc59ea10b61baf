"""A captain and its porters under the captain's limits. Workers load them with `MIDWATCH_AGENTS=tests.faults.lineage_agents`.

Each run of the tool and each model call is a line in the journal, which is a file that Redis does not know. `LINEAGE_DEATHS=n`
lets workers die n times at each of two places: just after a turn was admitted, and just after its calls were reserved.
`LINEAGE_WITHOUT=1` switches the reservation off, for the negative control.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from midwatch import Agent, RetryConfig, RunLimits, ToolContext, tool
from midwatch.orchestration.admission import redis_gate
from midwatch.orchestration.admission.redis_gate import RedisGate
from midwatch.orchestration.ports import Model
from midwatch.schemas.message import AssistantMessage, Text, ToolCall, UserMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.workers import providers
from tests.faults.journal import Journal
from tests.faults.lineage_plan import LOADS, MAX_STEPS, MAX_TOOL_CALLS, PORTERS

if "porters" not in providers.names():
    providers.register("porters", "tests.faults.lineage_agents:connect")

journal = Journal.from_environment()
MODEL = "porters:m-1"


class PorterModel:
    """The captain's model starts all porters in its first turn. A porter's model carries one load in each turn, then reports."""

    name = "porters"

    def complete(self, request: ModelRequest) -> ModelReply:
        """See `ports.Model`."""
        task = next(one.text for one in request.messages if isinstance(one, UserMessage))
        turn = sum(isinstance(one, AssistantMessage) for one in request.messages)
        journal.write("model", f"{task}/{turn}")
        if task == "lead" and turn == 0:
            return self._reply(*(("porter", {"input": f"porter {n}"}) for n in range(PORTERS)))
        if task != "lead" and turn < LOADS:
            return self._reply(("carry", {"load": f"{task}/{turn}"}))
        return ModelReply(parts=(Text(text="Done."),), stop=Stop.END, usage=USAGE, model=MODEL)

    def count(self, request: ModelRequest) -> int | None:
        """Return None: this model has no counter."""
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _reply(self, *calls: tuple[str, dict[str, Any]]) -> ModelReply:
        parts = tuple(
            ToolCall(id=f"call_{n}", name=name, raw_arguments=json.dumps(arguments))
            for n, (name, arguments) in enumerate(calls)
        )
        return ModelReply(parts=parts, stop=Stop.TOOLS, usage=USAGE, model=MODEL)


USAGE = Usage(input_tokens=10, output_tokens=5)


def connect(_: object) -> Model:
    """Connect the model, for the registry of providers."""
    return PorterModel()


@tool(idempotent=True)
def carry(context: ToolContext, load: str) -> str:
    """Carry a load."""
    journal.write("began", load, context)
    return f"carried {load}"


PATIENT = RetryConfig(max_retries=5, base_s=0.1, cap_s=0.5)
porter = Agent("porter", MODEL, "You carry.", [carry], retry_config=PATIENT)
by_calls = Agent(
    "by-calls", MODEL, "You lead.", [carry], children=[porter], retry_config=PATIENT,
    limits=RunLimits(max_tool_calls=MAX_TOOL_CALLS, max_children=PORTERS),
)  # fmt: skip
by_steps = Agent(
    "by-steps", MODEL, "You lead.", [carry], children=[porter], retry_config=PATIENT,
    limits=RunLimits(max_steps=MAX_STEPS, max_children=PORTERS),
)  # fmt: skip


def die_once(place: str) -> None:
    """Kill this process, as often as `LINEAGE_DEATHS` allows at this place in all processes together."""
    for number in range(int(os.environ.get("LINEAGE_DEATHS", "0"))):
        try:
            os.close(os.open(journal.folder / f"died-{place}-{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)


def add_deaths() -> None:
    """Let workers die between a reservation and what it is for."""
    admit, reserve = RedisGate.admit, RedisGate.reserve_calls

    def admit_and_die(gate: RedisGate, call: Any) -> Any:
        answer = admit(gate, call)
        if answer is None:
            die_once("admitted")
        return answer

    def reserve_and_die(gate: RedisGate, reservation: Any) -> Any:
        answers = reserve(gate, reservation)
        if None in answers:
            die_once("reserved")
        return answers

    RedisGate.admit, RedisGate.reserve_calls = admit_and_die, reserve_and_die  # type: ignore[method-assign]


if os.environ.get("LINEAGE_WITHOUT"):
    redis_gate.ancestry_of = lambda claim, chain: ""
    RedisGate.reserve_calls = lambda gate, reservation: [None] * len(reservation.calls)  # type: ignore[method-assign]
add_deaths()
