"""The agents of `bench storm`: a root with 8 x 8 children. The calls are tool calls to a downstream, or model calls.

With a tool, the models are scripts in this process and the calls are plain HTTP. This costs the least CPU, so two cores can
make a storm. With models, every call goes through a vendor's SDK.
"""

from __future__ import annotations

import os

from midwatch import Agent, RetryConfig, RunLimits, tool
from midwatch.orchestration.ports import Model
from midwatch.schemas.message import AssistantMessage, Part, Text, ToolCall, UserMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.workers import providers
from midwatch.workers.bench.storm_real import call as storm_call

LIMITS = RunLimits(session_timeout_s=3_600, max_steps=1_000)  # the limits of the root bind all its descendants
RETRY = RetryConfig(max_retries=int(os.environ.get(storm_call.RETRIES_VARIABLE, "3")))

if "storm" not in providers.names():
    providers.register("storm", "midwatch.workers.bench.storm_real.agents:connect")


@tool(downstream=storm_call.DOWNSTREAM, idempotent=True, timeout_s=storm_call.TIMEOUT_S)
def ask(call: str) -> str:
    """Make one call to the downstream."""
    storm_call.make_call(call)
    return "answered"


class ScriptedModel:
    """The model of the agents with the tool. It makes the agent's call, then the calls below it, then the final answer."""

    name = "storm"

    def complete(self, request: ModelRequest) -> ModelReply:
        """See `ports.Model`."""
        opening = request.messages[0]
        call = opening.text if isinstance(opening, UserMessage) else ""
        turn = sum(isinstance(message, AssistantMessage) for message in request.messages)
        following = {0: (call,), 1: storm_call.calls_below(call)}.get(turn, ())
        tool_name = ask.name if turn == 0 or request.model == "twig" else request.tools[-1].name
        argument = "call" if tool_name == ask.name else "input"
        parts: tuple[Part, ...] = tuple(
            ToolCall(id=f"call_{turn}_{n}", name=tool_name, raw_arguments=f'{{"{argument}":"{one}"}}')
            for n, one in enumerate(following)
        )
        usage = Usage(input_tokens=100, output_tokens=20)
        if not parts:
            return ModelReply(parts=(Text(text="Done."),), stop=Stop.END, usage=usage, model=request.model)
        return ModelReply(parts=parts, stop=Stop.TOOLS, usage=usage, model=request.model)

    def count(self, request: ModelRequest) -> int | None:
        """Return None: there is no exact count."""
        return None

    def close(self) -> None:
        """Do nothing."""


def connect(_: object) -> Model:
    """Return the model. The registry of providers calls this."""
    return ScriptedModel()


def make_agent(name: str, model: str, *children: Agent, tools: bool) -> Agent:
    """Make one agent of the storm."""
    offered = [*([ask] if tools else []), *(child.as_tool("Does a part of the work.") for child in children)]
    return Agent(name, model, "You do as you are told.", offered, retry_config=RETRY, limits=LIMITS)


tool_twig = make_agent("storm-tool-twig", "storm:twig", tools=True)
tool_root = make_agent("storm-tool-root", "storm:root", tool_twig, tools=True)
model_leaf = make_agent("storm-model-leaf", storm_call.MODEL, tools=False)
model_twig = make_agent("storm-model-twig", storm_call.MODEL, model_leaf, tools=False)
model_root = make_agent("storm-model-root", storm_call.MODEL, model_twig, tools=False)
