"""A model that answers at once, in the worker's process. So the time of a step is the time of the fleet."""

from __future__ import annotations

import time

from midwatch.orchestration.ports import Model
from midwatch.schemas.message import Text, ToolCall, UserMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage

SLOW_S = 0.3
"""Delay of `bench:slow`, so that a kill happens while steps run."""

ARGUMENTS = '{"query":"parcel","status":"open"}'


class ZeroModel:
    """Calls one tool in each turn, and gives the final answer in the turn that the job's input names (`steps=10`)."""

    name = "bench"

    def complete(self, request: ModelRequest) -> ModelReply:
        """See `ports.Model`."""
        if request.model == "slow":
            time.sleep(SLOW_S)
        first = request.messages[0]
        wanted = int(first.text.rpartition("=")[2]) if isinstance(first, UserMessage) else 1
        turn = len(request.messages) // 2 + 1
        usage = Usage(input_tokens=100 * turn, output_tokens=20)
        if turn >= wanted:
            part = Text(text=f"Found it after {len(request.messages)} messages.")
            return ModelReply(parts=(part,), stop=Stop.END, usage=usage, model=request.model)
        call = ToolCall(id=f"call_{turn}", name=request.tools[0].name, raw_arguments=ARGUMENTS)
        return ModelReply(parts=(call,), stop=Stop.TOOLS, usage=usage, model=request.model)

    def count(self, request: ModelRequest) -> int | None:
        """Return None: there is no exact count."""
        return None

    def close(self) -> None:
        """Do nothing."""


def connect(_: object) -> Model:
    """Return the model. The registry of providers calls this."""
    return ZeroModel()
