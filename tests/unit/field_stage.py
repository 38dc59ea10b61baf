"""Helpers of the walk over every field: run an agent inline, and prove that an entry points to something."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from midwatch import Agent, RetryConfig, tool
from midwatch.orchestration.client.job_result import JobResult
from midwatch.orchestration.ports import Gate
from midwatch.orchestration.tools.declaration import Tool
from midwatch.schemas.message import Part, Text
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.testing import InlineFleet, ManualClock, call

ROOT = Path(__file__).resolve().parents[2]

Probe = Callable[[], object]
"""Shows the effect of one field, or its refusal, by assertions."""


def refused(make: Callable[[], object], says: str) -> Probe:
    """The field can be declared, but every value other than its default is refused with what is coming."""

    def probe() -> None:
        with pytest.raises(ValueError, match=says):
            make()

    return probe


def shown_by(test: str) -> Probe:
    """The effect is shown by another test, `path::name`. The probe fails if there is no such test."""
    path, _, name = test.partition("::")

    def probe() -> None:
        assert name in _tests_of(path), f"{path} has no test {name}"

    return probe


@cache
def _tests_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def differs(observe: Callable[[Any], object], one: object, other: object) -> Probe:
    """The two values give two different observations."""

    def probe() -> None:
        assert observe(one) != observe(other)

    return probe


class Model:
    """A model that takes its replies from a script and repeats the last one. `requests` has what it got."""

    name = "scripted"

    def __init__(self, *script: str | Part | Sequence[Part]) -> None:
        self.script = list(script) or ["Done."]
        self.requests: list[ModelRequest] = []

    def complete(self, request: ModelRequest) -> ModelReply:
        """See `ports.Model`."""
        self.requests.append(request)
        line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        parts = (Text(text=line),) if isinstance(line, str) else tuple(line) if isinstance(line, Sequence) else (line,)
        stop = Stop.END if isinstance(line, str) else Stop.TOOLS
        parts = tuple(part if isinstance(part, Text) else part.model_copy(update={"id": "c"}) for part in parts)
        return ModelReply(parts=parts, stop=stop, usage=Usage(input_tokens=100, output_tokens=20), model="m-1")

    def count(self, request: ModelRequest) -> None:
        """This model has no counter."""


class Play:
    """One job of one agent, run to its end or until a human must decide."""

    def __init__(
        self,
        *script: str | Part | Sequence[Part],
        tools: Sequence[Tool] = (),
        gate: Gate | None = None,
        clock: ManualClock | None = None,
        **policies: Any,
    ) -> None:
        self.clock = clock or ManualClock()
        self.model = Model(*script)
        self.agent = Agent("clerk", "scripted:m-1", "You help.", tools, **policies)
        self.fleet = InlineFleet(self.agent, model=self.model, clock=self.clock, gate=gate)
        self.began_ms = self.clock.monotonic_ms()
        self.job_id = self.fleet.enqueue(self.agent, "Go.", session_id="s1")
        self.result: JobResult = self.fleet.run(self.job_id)

    @property
    def request(self) -> ModelRequest:
        """The first request."""
        return self.model.requests[0]

    @property
    def took_ms(self) -> int:
        """How long it took, by the fleet's clock."""
        return self.clock.monotonic_ms() - self.began_ms


class Broken:
    """A tool that fails at each call. `calls_ms` has the times of its calls."""

    def __init__(self, **policies: Any) -> None:
        self.clock = ManualClock()
        self.calls_ms: list[int] = []

        @tool(**{"idempotent": True, **policies})
        def look_up() -> str:
            """Find an order."""
            self.calls_ms.append(self.clock.monotonic_ms())
            raise RuntimeError("broken")

        self.tool = look_up

    def play(self, **config: Any) -> Play:
        """Let an agent with this `RetryConfig` call it."""
        given = {"retry_on": ["tool_error"], "jitter": "none", "base_s": 1.0, **config}
        return Play(call("look_up"), "Done.", tools=[self.tool], clock=self.clock, retry_config=RetryConfig(**given))

    def waits_s(self, **config: Any) -> list[float]:
        """The waits between its calls, with this `RetryConfig`."""
        self.play(**config)
        return [(later - sooner) / 1_000 for sooner, later in zip(self.calls_ms, self.calls_ms[1:], strict=False)]
