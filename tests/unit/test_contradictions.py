"""A declaration that contradicts itself, or would have no effect, is refused when it is made."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from midwatch import Agent, ContextBudget, Escalation, GoalContract, ModelPolicy, RetryConfig, RunLimits, tool
from midwatch.orchestration.agents import known_models
from midwatch.orchestration.agents.model_names import ModelName
from midwatch.orchestration.errors import ConfigError
from midwatch.validators import JSONSchemaValidator
from midwatch.workers.cli.commands.doctor_checks import check_model_ends
from midwatch.workers.settings import Settings


@tool(idempotent=True)
def look_up(order: str) -> str:
    """Find an order."""
    return order


@tool
def pay(order: str) -> str:
    """Pay for an order."""
    return order


def agent(**fields: Any) -> Agent:
    """Make an agent with one tool that can be repeated and one that can't."""
    given = {"name": "clerk", "model": "claude-sonnet-4-6", "system_prompt": "You help.", "tools": [look_up, pay]}
    return Agent(**{**given, **fields})


def plain(**fields: Any) -> Agent:
    """Make an agent without tools."""
    return agent(tools=[], **fields)


def declare(**policies: Any) -> None:
    """Declare a tool."""

    @tool(**policies)
    def take(order: str) -> str:
        """Take an order."""
        return order


SHOWN = [
    # what is declared; what the error says
    (lambda: plain(retry_config=RetryConfig(retry_on=["tool_error"])), "tool_error in retry_on has no effect"),
    (lambda: agent(tools=[pay], retry_config=RetryConfig(retry_on=["tool_error"])), r"idempotent=True"),
    (lambda: plain(retry_config=RetryConfig(fail_hard_on=["tool_error"])), "tool_error in fail_hard_on has no effect"),
    (lambda: RetryConfig(max_retries=0, retry_on=["tool_error"]), "max_retries=0 allows no retry"),
    (lambda: RetryConfig(max_redrives=2), "redrive='auto'"),
    (lambda: RetryConfig(retry_on=["budget_exceeded"]), "can't be retried"),
    (lambda: agent(context_budget=ContextBudget(1_000_001)), r"more than the window of .*1,000,000 tokens"),
    (
        lambda: agent(context_budget=ContextBudget(300_000), fallback_models=["claude-haiku-4-5-20251001"]),
        r"window of 'anthropic:claude-haiku-4-5-20251001', 200,000",
    ),
    (lambda: agent(model="claude-3-5-sonnet-20241022"), r"retired on 2025-10-28.*allow_retired=True"),
    (lambda: agent(model="openai:gpt-4-0613"), "retired on 2026-10-23"),
    (lambda: agent(fallback_models=["claude-opus-4-20250514"]), "retired on 2026-06-15"),
    (
        lambda: agent(context_budget=ContextBudget(50_000, summary_model="claude-3-7-sonnet-20250219")),
        "retired on 2026-02-19",
    ),
    (lambda: agent(fallback_models=["claude-opus-4-6", "claude-opus-4-7"]), "only the first is used"),
    (lambda: agent(fallback_models=["claude-sonnet-4-6"]), "the agent's own model"),
    (lambda: ContextBudget(9_000, "fail", act_at=0.7), "does not use act_at"),
    (lambda: ContextBudget(9_000, "fail", wait_at=0.9, shrink_to=0.4), "does not use wait_at, shrink_to"),
    (lambda: ContextBudget(9_000, "fail", summary_model="m:1"), "does not use summary_model"),
    (lambda: ContextBudget(9_000, "escalate", act_at=0.7), "does not use act_at"),
    (lambda: ContextBudget(9_000, "trim_oldest", summary_model="m:1"), "does not use summary_model"),
    (lambda: ContextBudget(9_000, pin=["", "x"]), "at least 1 character"),
    (lambda: GoalContract("Win.", deliverables=[" "]), "at least 1 character"),
    (lambda: RunLimits(max_cost_usd=1), r"max_cost_usd=1.0: not built yet.*max_input_tokens"),
    (lambda: RunLimits(session_timeout_s=600, deadline_s=60), "session_timeout_s=600 is never reached"),
    (lambda: RunLimits(max_wait_s=600, deadline_s=60), "max_wait_s=600 is never reached"),
    (lambda: RunLimits(call_timeout_s=90, deadline_s=60), "call_timeout_s=90 is above deadline_s=60"),
    (lambda: ModelPolicy(on_change="warn"), "on_change='warn': not built yet"),
    (lambda: ModelPolicy(on_version_change="park"), "on_version_change='park': not built yet"),
    (lambda: Escalation("tool_approval", share=0.5), "share=0.5: not built yet"),
    (lambda: Escalation("tool_approval", risk="high"), "risk='high': not built yet"),
    (lambda: Escalation("drift"), r"when='drift': not built yet.*midwatch findings"),
    (lambda: Escalation("budget_share"), "when='budget_share': not built yet"),
    (lambda: Escalation("tainted_argument"), "when='tainted_argument': not built yet"),
    (lambda: Escalation("model_asks"), r"when='model_asks': not built yet.*requires_approval"),
    (lambda: Escalation("tool_approval", on_expiry="approve"), "no effect without expires_s"),
    (lambda: agent(escalation=[Escalation("tool_approval", expires_s=90_000)]), "expires_s=90000 is never reached"),
    (lambda: agent(escalation=[Escalation("tool_approval", ["lok_up"])]), r"did you mean 'look_up'\?"),
    (lambda: plain(escalation=[Escalation("tool_approval")]), "the agent has no tools"),
    (lambda: agent(escalation=[Escalation("unknown_effect", ["look_up"])]), "never unknown"),
    (
        lambda: agent(escalation=[Escalation("unknown_effect"), Escalation("unknown_effect", ["pay"])]),
        "the second rule has no effect",
    ),
    (lambda: agent(limits=RunLimits(max_tool_calls={"payy": 1})), r"did you mean 'pay'\?"),
    (
        lambda: Settings(hand_off=True, broker_url="amqp://broker"),
        "hand_off=true has no effect, because broker_url is another",
    ),
    (lambda: Settings(log_level="LOUD"), "should match pattern"),
    (lambda: declare(inline=True, requires_approval=True), "inline=True has no effect with requires_approval=True"),
    (lambda: declare(inline=True, downstream="jira"), "inline=True has no effect with downstream='jira'"),
    (lambda: declare(retry=RetryConfig()), "retry with idempotent=False"),
    (lambda: declare(retry=RetryConfig(max_retries=0)), "retry has no effect"),
]


@pytest.mark.parametrize(("make", "says"), SHOWN, ids=[says[:40] for _, says in SHOWN])
def test_a_contradiction_is_refused_with_what_to_do(make: Any, says: str) -> None:
    """The error says what was given, why it would have no effect, and what to do."""
    with pytest.raises(ValueError, match=says):  # ConfigError and pydantic's ValidationError are both ValueErrors
        make()


def test_the_defaults_are_never_compared_with_what_is_set() -> None:
    """A short deadline, a short session or a small budget needs no other field."""
    RunLimits(deadline_s=1)
    RunLimits(session_timeout_s=0.5, call_timeout_s=9)
    RunLimits(deadline_s=30, max_wait_s=None)
    Settings(broker_url="amqp://broker")
    agent(escalation=[Escalation("tool_approval", expires_s=90_000)], limits=RunLimits(max_wait_s=None))
    ContextBudget(9_000, "fail")
    ContextBudget(9_000, "escalate", shrink_to=0.4)
    ModelPolicy(on_change="hold", on_version_change="finish")
    Escalation("tool_approval", expires_s=60, on_expiry="approve")
    plain(retry_config=RetryConfig())
    agent(escalation=[Escalation("tool_approval"), Escalation("tool_approval", ["pay"], expires_s=60)])
    agent(model_policy=ModelPolicy(allow_alias=True))


def test_a_model_that_ends_later_is_accepted_and_shown() -> None:
    """`midwatch doctor` warns of it, and fails from its last day on."""
    soon = plain(model="gpt-5-2025-08-07", fallback_models=["claude-sonnet-4-6"])
    ends = known_models.find_ends(soon.all_models)
    assert ends == [("openai:gpt-5-2025-08-07", date(2026, 12, 11))]
    assert [check.result for check in check_model_ends("clerk", ends, date(2026, 12, 10))] == ["warn"]
    assert [check.result for check in check_model_ends("clerk", ends, date(2026, 12, 11))] == ["fail"]


def test_a_retired_model_can_be_allowed() -> None:
    """A gateway or another cloud may still have it. Other models than the vendors' own are not checked."""
    old = "claude-3-5-sonnet-20241022"
    assert plain(model=old, model_policy=ModelPolicy(allow_retired=True)).model.model == old
    assert plain(model=f"openai-compatible:{old}").model.model == old


@pytest.mark.parametrize(
    ("name", "window", "ends"),
    [
        ("claude-sonnet-4-6", 1_000_000, None),
        ("claude-opus-4-5-20251101", 200_000, "2027-01-22"),
        ("claude-sonnet-4-5-20250929", 200_000, "2026-11-30"),
        ("gpt-5-mini-2025-08-07", 400_000, "2026-12-11"),
        ("gpt-4o-2024-05-13", 128_000, "2026-10-23"),
        ("gpt-4o-2024-08-06", 128_000, "2027-01-14"),
        ("gpt-4", 8_192, "2026-10-23"),
        ("gpt-6.1-sol", 1_050_000, None),
        ("gemini-2.5-pro", 1_048_576, "2026-12-01"),
        ("ft:gpt-4-0613:acme::1", None, None),
        ("claude-next-9", None, None),
        ("scripted:m-1", None, None),
    ],
)
def test_the_table_of_known_models(name: str, window: int | None, ends: str | None) -> None:
    """A name that no row matches completely is unknown, and is not checked."""
    known = known_models.look_up(ModelName.parse(name))
    assert (known.window, known.ends) == (window, date.fromisoformat(ends) if ends else None)


def test_what_the_anthropic_sdk_calls_deprecated_is_in_the_table() -> None:
    """The table is our own, so that `import midwatch` does not load the SDK. It must not know less."""
    data = pytest.importorskip("anthropic._data.deprecated_models")
    for name in data.DEPRECATED_MODELS:
        assert known_models.look_up(ModelName("anthropic", name)).ends is not None, name


def test_the_declaration_of_the_readers_first_example_is_accepted() -> None:
    """The example of the project's mission, with its dots filled in: an idempotent tool, and both kinds of retry."""

    @tool(
        name="search_tickets",
        description="Search support tickets by keyword and status",
        validator=JSONSchemaValidator(
            {
                "type": "object",
                "properties": {"query": {"type": "string"}, "status": {"type": "string"}},
                "required": ["query"],
            }
        ),
        idempotent=True,
    )
    def search_tickets(query: str, status: str = "open") -> list[dict[str, str]]:
        return [{"query": query, "status": status}]

    made = Agent(
        name="support-triage-v2",
        model="claude-sonnet-4-6",
        system_prompt="You sort support tickets.",
        tools=[search_tickets],
        retry_config=RetryConfig(
            max_retries=3, backoff_factor=2.0,
            retry_on=["tool_error", "format_error"],
            fail_hard_on=["context_overflow", "auth_error"],
        ),
        context_budget=ContextBudget(max_tokens=120_000, on_overflow="summarize_and_trim"),
    )  # fmt: skip
    assert made.name == "support-triage-v2"


def test_an_error_names_the_agent() -> None:
    """The message begins with the agent whose declaration is wrong."""
    with pytest.raises(ConfigError, match=r"^agent 'clerk': retry_config: "):
        plain(retry_config=RetryConfig(retry_on=["tool_error"]))
