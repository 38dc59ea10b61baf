"""What each keyword of `@tool`, `Agent` and `JSONSchemaValidator` does: one probe a keyword."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from midwatch import (
    Agent,
    ContextBudget,
    Escalation,
    GoalContract,
    ModelPolicy,
    RetryConfig,
    RunLimits,
    ToolContext,
    tool,
)
from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.drift.ladder import usual_offer
from midwatch.orchestration.protocol.calls import Call
from midwatch.schemas.message import ToolMessage
from midwatch.testing import call
from midwatch.validators import JSONSchemaValidator
from tests.unit.field_stage import Broken, Play, Probe, differs, refused, shown_by

STRICT = JSONSchemaValidator(
    {"type": "object", "properties": {"order": {"type": "string", "pattern": "^W"}}, "required": ["order"]}
)


def plays(**policies: Any) -> Play:
    """Let an agent call one tool with these keywords of `@tool`."""
    ran: list[float] = []

    @tool(**policies)
    def look_up(order: str, context: ToolContext) -> str:
        """Find an order.

        Args:
            order: its number.
        """
        ran.append(context.timeout_s)
        return "found it " * 500

    play = Play(call(look_up.name, order="A-17"), "Done.", tools=[look_up])
    play.ran = ran  # type: ignore[attr-defined]
    return play


def ran(**policies: Any) -> list[float]:
    """The time limit of each call of the tool."""
    found: list[float] = plays(**policies).ran  # type: ignore[attr-defined]
    return found


def result(**policies: Any) -> str:
    """The result that the model gets."""
    play = plays(**policies)
    return next(one.content for one in play.fleet.messages(play.job_id) if isinstance(one, ToolMessage))


def kinds_of_tasks(**policies: Any) -> list[str]:
    """Where the calls and turns ran: the steps that were published."""
    play = plays(**policies)
    return [record.step for record in play.fleet.trace(play.job_id)]


def gated(downstream: str | None) -> list[str]:
    """The downstreams that the gate was asked for."""
    asked: list[str] = []

    class Noting(OpenGate):
        def admit(self, call: Call) -> None:
            asked.append(call.downstream)

    @tool(downstream=downstream)
    def look_up() -> str:
        """Find an order."""
        return "found"

    Play(call("look_up"), "Done.", tools=[look_up], gate=Noting())
    return asked


def calls_when_broken(**policies: Any) -> int:
    """How often a broken tool with these keywords is called."""
    broken, fine = Broken(**policies), Broken(name="other")
    config = RetryConfig(retry_on=["tool_error"], base_s=0.1)
    Play(call("look_up"), "Done.", tools=[broken.tool, fine.tool], clock=broken.clock, retry_config=config)
    return len(broken.calls_ms)


def first_turn(policies: Mapping[str, Any]) -> int:
    """How often the tool has run when the first model turn's own task is over."""
    from midwatch.testing import InlineFleet
    from tests.unit.field_stage import Model

    runs: list[int] = []

    @tool(**policies)
    def look_up() -> str:
        """Find an order."""
        runs.append(1)
        return "found"

    agent = Agent("clerk", "scripted:m-1", "You help.", [look_up])
    fleet = InlineFleet(agent, model=Model(call("look_up"), "Done."))
    fleet.enqueue(agent, "Go.")
    fleet.runner.run(fleet.published.popleft())
    return len(runs)


RETRY_ONCE = RetryConfig(max_retries=1, base_s=0.1, retry_on=["tool_error"])

TOOL: Mapping[str, Probe] = {
    "name": differs(lambda name: plays(name=name).request.tools[0].name, "look_up", "find"),
    "description": differs(lambda text: plays(description=text).request.tools[0].description, "Look.", "Find."),
    "validator": differs(lambda validator: len(ran(validator=validator)), None, STRICT),
    "idempotent": differs(lambda value: calls_when_broken(idempotent=value), False, True),
    "timeout_s": differs(lambda value: ran(timeout_s=value), 5.0, 7.0),
    "downstream": differs(gated, None, "jira"),
    "requires_approval": differs(lambda value: str(plays(requires_approval=value).result.status), False, True),
    "max_result_tokens": differs(lambda n: len(result(max_result_tokens=n)), 200, 400),
    "retry": differs(lambda config: calls_when_broken(idempotent=True, retry=config), None, RETRY_ONCE),
    "inline": differs(first_turn, {"inline": False}, {"inline": True}),
    "validation": differs(lambda value: len(ran(validator=STRICT, validation=value)), "enforce", "shadow"),
}

VALIDATOR: Mapping[str, Probe] = {
    "schema": differs(
        lambda kind: bool(JSONSchemaValidator({"properties": {"n": {"type": kind}}}).problems({"n": 1})),
        "integer",
        "string",
    ),
}


@tool(idempotent=True)
def look_up() -> str:
    """Find an order."""
    return "found"


@tool
def pay() -> str:
    """Pay."""
    return "paid"


def request(**fields: Any) -> Any:
    """The first request of an agent with these keywords."""
    return Play("Done.", **fields).request


def digest(**fields: Any) -> str:
    """The version of an agent with these keywords."""
    given = {"name": "clerk", "model": "scripted:m-1", "system_prompt": "You help.", "tools": [look_up, pay]}
    return Agent(**{**given, **fields}).version


def reserve(tokens: int) -> int:
    """The output that a request asks for at most."""
    asked: int = request(context_budget=ContextBudget(9_000, reserve_output=tokens)).max_output_tokens
    return asked


def offered_schema(schema: Any) -> Any:
    """The output schema of an agent's requests."""
    return usual_offer(Agent("clerk", "scripted:m-1", "You help.", output_schema=schema)).output_schema


OUTPUT = {"type": "object", "properties": {"order": {"type": "string"}}}

AGENT: Mapping[str, Probe] = {
    "name": differs(lambda name: digest(name=name), "clerk", "other"),
    "model": differs(lambda model: Agent("clerk", model, "You help.").model, "scripted:m-1", "scripted:m-2"),
    "system_prompt": differs(lambda text: Agent("clerk", "scripted:m-1", text).system, "You help.", "You work."),
    "tools": differs(lambda tools: len(request(tools=tools).tools), (), (look_up,)),
    "retry_config": differs(lambda n: len(Broken().waits_s(max_retries=n)), 1, 2),
    "context_budget": differs(reserve, 500, 900),
    "limits": differs(lambda n: request(limits=RunLimits(call_timeout_s=n)).timeout_s, 5.0, 9.0),
    "output_schema": differs(offered_schema, None, OUTPUT),
    "model_policy": differs(
        lambda value: _is_accepted("gpt-5", ModelPolicy(allow_alias=value)), False, True
    ),
    "goal": differs(lambda goal: request(goal=goal).system, None, GoalContract("Win.")),
    "escalation": differs(
        lambda rules: str(Play(call("pay"), "Done.", tools=[pay], escalation=rules).result.status),
        [], [Escalation("tool_approval")],
    ),
    "children": differs(
        lambda children: len(request(children=children).tools), [], [Agent("child", "scripted:m-1", "You help.")]
    ),
    "fallback_models": shown_by("tests/unit/test_ladder.py::test_the_rungs"),
}  # fmt: skip

SECOND_FALLBACK: Probe = refused(
    lambda: Agent("clerk", "scripted:m-1", "You help.", fallback_models=["scripted:m-2", "scripted:m-3"]),
    "only the first",
)


def _is_accepted(model: str, policy: ModelPolicy) -> bool:
    try:
        return bool(Agent("clerk", model, "You help.", model_policy=policy))
    except ValueError:
        return False
