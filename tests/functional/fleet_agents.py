"""The agents of the functional tests. Workers load them with `MIDWATCH_AGENTS=tests.functional.fleet_agents`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from midwatch import Agent, ContextBudget, Escalation, RetryConfig, RunLimits
from tests.functional import fleet_tools as tools

WIRES = {
    "anthropic": "claude-sonnet-4-6",
    "responses": "gpt-5-2025-08-07",
    "chat": "openai-compatible:house-model-1",
}
"""One pinned model for each vendor format that the model server supports."""

CLAUDE = WIRES["anthropic"]

PATIENT = RetryConfig(
    max_retries=3,
    base_s=0.02,
    cap_s=0.1,
    retry_on=("rate_limited", "overloaded", "provider_error", "timeout", "connection", "tool_error"),
)
PATIENT_WITH_MODELS = RetryConfig(max_retries=3, base_s=0.02, cap_s=0.1)
"""The same for agents without an idempotent tool: for them `tool_error` in `retry_on` is refused."""
IMPATIENT = RetryConfig(max_retries=0, retry_on=())


SHORT_S = 5.0
"""The deadline of a job that should time out, but not before its first turn, which takes seconds on a loaded machine."""

CALL_S = 3.0
"""The deadline of a model call that should time out, while the next call must be answered in time."""


def agent(name: str, model: str = CLAUDE, *offered: Any, **policies: Any) -> Agent:
    """Make an agent with short retry waits."""
    can_repeat = any(one.idempotent and one.child is None and one.retry is None for one in offered)
    policies.setdefault("retry_config", PATIENT if can_repeat else PATIENT_WITH_MODELS)
    return Agent(name, model, "You work in a library. Be brief.", offered, **policies)


# Sessions
plain = agent("plain")
rejecting = agent("rejecting", limits=RunLimits(on_busy="reject"))
interrupting = agent("interrupting", limits=RunLimits(on_busy="interrupt"))

# Tools: the same agent in each vendor format
WORKSHOP = (
    tools.add, tools.greet, tools.ping, tools.peek, tools.flicker, tools.who, tools.meet, tools.find_order,
    tools.unsteady, tools.unrepeatable, tools.vital, tools.report, tools.measure, tools.drowse, tools.nod, tools.drowse_once,
    tools.search, tools.long_haul, tools.nest,
)  # fmt: skip
workshops = {wire: agent(f"workshop-{wire}", model, *WORKSHOP) for wire, model in WIRES.items()}
WORKSHOPS = list(workshops.values())
telling = agent("telling", CLAUDE, tools.unsteady, retry_config=IMPATIENT)
strict = agent(
    "strict", CLAUDE, tools.unsteady, retry_config=RetryConfig(max_retries=0, retry_on=(), fail_hard_on=("connection",))
)
unhurried = agent(
    "unhurried", CLAUDE, tools.unsteady, retry_config=RetryConfig(base_s=60, jitter="none", retry_on=("connection",))
)

# Limits
three_steps = agent("three-steps", CLAUDE, tools.add, limits=RunLimits(max_steps=3))
brief = agent("brief", CLAUDE, tools.long_haul, limits=RunLimits(session_timeout_s=0.5))
two_calls = agent("two-calls", CLAUDE, tools.add, tools.ping, limits=RunLimits(max_tool_calls=2))
one_search = agent("one-search", CLAUDE, tools.search, tools.add, limits=RunLimits(max_tool_calls={"search": 1}))
frugal = agent("frugal", CLAUDE, tools.add, limits=RunLimits(max_input_tokens=1_500))
terse = agent("terse", CLAUDE, tools.add, limits=RunLimits(max_output_tokens=20))
hurried = agent(
    "hurried",
    CLAUDE,
    limits=RunLimits(call_timeout_s=CALL_S, max_wait_s=3 * CALL_S),
    retry_config=RetryConfig(max_retries=1, base_s=0.02, cap_s=0.02, retry_on=("timeout",)),
)


def narrow(name: str, model: str, on_overflow: Literal["trim_oldest", "fail", "escalate"]) -> Agent:
    """Make an agent whose window has room for a few results only."""
    budget = ContextBudget(max_tokens=2_400, reserve_output=300, on_overflow=on_overflow)
    return agent(name, model, tools.report, tools.add, context_budget=budget)


trimming = {wire: narrow(f"trimming-{wire}", model, "trim_oldest") for wire, model in WIRES.items()}
TRIMMING = list(trimming.values())
unbending = narrow("unbending", CLAUDE, "fail")


class Verdict(BaseModel):
    """The schema that the agent `pydantic-verdict` must answer with."""

    order: str = Field(pattern="^W[0-9]+$")
    refund: bool


verdict = agent("pydantic-verdict", output_schema=Verdict)
plain_verdict = agent(
    "dict-verdict",
    WIRES["responses"],
    output_schema={
        "type": "object",
        "properties": {"order": {"type": "string"}, "cents": {"type": "integer", "minimum": 0}},
        "required": ["order", "cents"],
        "additionalProperties": False,
    },
)

# Children
scribe = agent("scribe", CLAUDE, tools.add, tools.long_haul, tools.idle)
head = agent("head", CLAUDE, tools.add, children=[scribe])
chief = agent("chief", CLAUDE, scribe.as_tool("Writes things down."), head.as_tool("Runs the reading room."))
only_child = agent("only-child", CLAUDE, children=[scribe], limits=RunLimits(max_children=1))
lowest = agent("lowest", CLAUDE, children=[scribe], limits=RunLimits(max_depth=1))
middle = agent("middle", CLAUDE, children=[lowest])
hasty = agent("hasty", CLAUDE, tools.idle, children=[scribe], limits=RunLimits(session_timeout_s=SHORT_S))

# Approvals
desk = agent("desk", CLAUDE, tools.wipe, tools.pay, tools.add, tools.gamble)
soon = agent("soon", CLAUDE, tools.wipe, limits=RunLimits(session_timeout_s=SHORT_S))

# The clock of a job
patron = agent("patron", CLAUDE, tools.idle, children=[soon], limits=RunLimits(session_timeout_s=SHORT_S))
unhurt = agent("unhurt", WIRES["chat"], limits=RunLimits(session_timeout_s=SHORT_S))
waiting_little = agent("waiting-little", WIRES["chat"], limits=RunLimits(session_timeout_s=SHORT_S, max_wait_s=2.0))
expiring = agent(
    "expiring",
    CLAUDE,
    tools.ship,
    escalation=[Escalation(when="tool_approval", tools=("ship",), expires_s=1.0, on_expiry="reject")],
)
expiring_hard = agent(
    "expiring-hard",
    CLAUDE,
    tools.ship,
    escalation=[Escalation(when="tool_approval", tools=("ship",), expires_s=1.0, on_expiry="dead_letter")],
)
escalating = agent(
    "escalating",
    WIRES["responses"],
    tools.ship,
    tools.add,
    escalation=[Escalation(when="tool_approval", tools=("ship",))],
)
