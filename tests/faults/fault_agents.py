"""Agents that fail on purpose. Workers load them with `MIDWATCH_AGENTS=tests.faults.fault_agents`.

A job's input is its plan (see `plan.py`): the tool calls of each turn, and the faults of the model. Each begin and end of a
tool or a model call is a line in the journal, which is a file that Redis does not know. A tool that holds waits for its gate.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Any

from midwatch import Agent, ContextBudget, RunLimits, ToolContext, tool
from midwatch.orchestration.ports import Model
from midwatch.schemas.message import AssistantMessage, Text, ToolCall, UserMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.workers import providers
from tests.faults import crashes
from tests.faults.journal import Journal
from tests.faults.plan import Plan
from tests.tickets import without

if "faults" not in providers.names():
    providers.register("faults", "tests.faults.fault_agents:connect")

if os.environ.get("FAULTS_WITHOUT"):
    without.off(os.environ["FAULTS_WITHOUT"])

journal = Journal.from_environment()


class PlannedModel:
    """Makes the calls of the plan, turn by turn, then answers. It depends on the conversation only."""

    name = "faults"

    def complete(self, request: ModelRequest) -> ModelReply:
        """See `ports.Model`."""
        messages = request.messages
        began = max(n for n, message in enumerate(messages) if isinstance(message, UserMessage))
        user = messages[began]
        plan = Plan.read(user.text if isinstance(user, UserMessage) else "")
        turn = sum(isinstance(message, AssistantMessage) for message in messages[began:])
        self._befall(*plan.model.get(turn, ("", "")))
        usage = Usage(input_tokens=1_000 + len(messages), output_tokens=1)
        if turn >= len(plan.turns):
            done = Text(text=f"done after {turn} turns")
            return ModelReply(parts=(done,), stop=Stop.END, usage=usage, model=request.model)
        calls = tuple(
            ToolCall(id=f"call_{n}", name=name, raw_arguments=f'{{"word": "{word}"}}')
            for n, (name, word) in enumerate(plan.turns[turn])
        )
        return ModelReply(parts=calls, stop=Stop.TOOLS, usage=usage, model=request.model)

    def count(self, request: ModelRequest) -> int | None:
        """Return None: this model has no counter."""
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _befall(self, fate: str, word: str) -> None:
        if fate:
            first = not journal.of(word, "model")
            journal.write("model", word)
            if fate == "hold":
                journal.await_gate(word)
            elif fate == "think":
                time.sleep(float(word))
            elif fate == "die_once" and first:
                os.kill(os.getpid(), signal.SIGKILL)
            journal.write("replied", word)


def connect(_: object) -> Model:
    """Connect the model, for the registry of providers."""
    return PlannedModel()


@tool(idempotent=True)
def note(context: ToolContext, word: str) -> str:
    """Write a mark."""
    journal.write("began", word, context)
    return f"noted {word}"


@tool(idempotent=True, timeout_s=60)
def hold(context: ToolContext, word: str) -> str:
    """Wait until the gate is open. May be repeated."""
    return _hold(context, word)


@tool(timeout_s=60)
def hold_once(context: ToolContext, word: str) -> str:
    """Wait until the gate is open. Must not be repeated."""
    return _hold(context, word)


@tool(idempotent=True, timeout_s=60, inline=True)
def hold_inline(context: ToolContext, word: str) -> str:
    """Wait until the gate is open, as an inline call. May be repeated."""
    return _hold(context, word)


@tool(timeout_s=60, inline=True)
def hold_inline_once(context: ToolContext, word: str) -> str:
    """Wait until the gate is open, as an inline call. Must not be repeated."""
    return _hold(context, word)


def _hold(context: ToolContext, word: str) -> str:
    journal.write("began", word, context)
    journal.await_gate(word)
    journal.write("ended", word, context)
    return f"held {word}"


@tool(idempotent=True)
def die(context: ToolContext, word: str) -> str:
    """Kill the process that runs this tool."""
    journal.write("began", word, context)
    os.kill(os.getpid(), signal.SIGKILL)
    return "unreachable"


@tool(idempotent=True)
def crash(context: ToolContext, word: str) -> str:
    """End the process that runs this tool. The word begins with the way: see `crashes`."""
    journal.write("began", word, context)
    crashes.crash(word.partition("-")[0])
    return "unreachable"


@tool(idempotent=True, inline=True)
def crash_inline(context: ToolContext, word: str) -> str:
    """End the process that runs this tool, as an inline call."""
    journal.write("began", word, context)
    crashes.crash(word.partition("-")[0])
    return "unreachable"


@tool(timeout_s=0.5)
def spin(context: ToolContext, word: str) -> str:
    """Loop forever in Python. It ends with the test, so that the machine is not kept busy."""
    journal.write("began", word, context)
    give_up = time.monotonic() + 20
    while not journal.is_open(word) and time.monotonic() < give_up:
        pass
    return "late"


@tool(timeout_s=0.5)
def sleep_in_c(context: ToolContext, word: str) -> str:
    """Hang in a library call that lets other threads run."""
    journal.write("began", word, context)
    time.sleep(6)
    return "late"


@tool(idempotent=True, timeout_s=0.5)
def seize(context: ToolContext, word: str) -> str:
    """Hang in a library call that holds the interpreter's lock, so that no other thread of the process runs."""
    journal.write("began", word, context)
    ctypes.PyDLL(None).sleep(100)
    return "late"


@tool(idempotent=True, timeout_s=0.5)
def quick_note(context: ToolContext, word: str) -> str:
    """Write a mark without any delay."""
    journal.write("began", word, context)
    return f"noted {word}"


TOOLS = [note, hold, hold_once, hold_inline, hold_inline_once, die, crash, crash_inline, spin, sleep_in_c]
POLICIES: dict[str, Any] = {"limits": RunLimits(max_steps=20), "context_budget": ContextBudget(max_tokens=100_000)}
fault = Agent("fault", "faults:planned", "You follow the plan.", TOOLS, **POLICIES)
seizing = Agent("seizing", "faults:planned", "You follow the plan.", [quick_note, seize], **POLICIES)
"""The only agent of its worker. The pool's time limit follows from the longest tool, so it is short enough for a test."""
elsewhere = Agent("elsewhere", "faults:planned", "You follow the plan.", [note], **POLICIES)
