"""What `midwatch dev` simulates: the providers without credentials, or all of them if rules are given."""

from __future__ import annotations

import socket
import sys

import pytest

from midwatch.errors import ConfigError
from midwatch.workers.cli.commands.dev import make_plan
from midwatch.workers.cli.commands.load_agents import find_missing, load_agents
from midwatch.workers.demo import dev as dev_module
from midwatch.workers.demo.dev import DevPlan
from midwatch.workers.demo.stage import SIMULATED
from midwatch.workers.demo.stand_in import answer
from midwatch.workers.process.runtime import import_agents
from midwatch.workers.providers.credentials import NEEDED, VARIABLES
from midwatch.workers.settings import Settings
from midwatch.workers.simulator import Conversation, ConversationTurn, Say, SimulatedCall, ToolOffer, Use

AGENTS = """
from midwatch import Agent
one = Agent("one", "claude-sonnet-4-6", "Help.")
two = Agent("two", "gpt-5-2025-08-07", "Help.", fallback_models=["gemini-2.5-pro"])
local = Agent("local", "openai-compatible:qwen-3", "Help.")
"""


@pytest.fixture(autouse=True)
def agents(tmp_path, monkeypatch):
    """Agents of four providers, and an environment without a vendor's variables."""
    (tmp_path / "four_agents.py").write_text(AGENTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    yield Settings(agents=("four_agents",))
    sys.modules.pop("four_agents", None)
    import_agents.cache_clear()


def test_without_keys_every_provider_is_simulated(agents):
    """Each missing variable is named with the agents that need it, also for a fallback model."""
    plan = make_plan(agents)
    assert plan.providers == ("anthropic", "openai", "gemini", "openai-compatible")
    assert plan.missing == {
        "ANTHROPIC_API_KEY": ["one"],
        "OPENAI_API_KEY": ["two"],
        "GEMINI_API_KEY": ["two"],
        "OPENAI_BASE_URL": ["local"],
    }
    assert "ANTHROPIC_API_KEY, OPENAI_API_KEY" in dev_module._describe_models(plan)


def test_a_provider_with_its_key_is_called(agents, monkeypatch):
    """One missing key does not simulate the others."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("GEMINI_API_KEY", "  ")
    plan = make_plan(Settings(agents=("four_agents",)))
    assert plan.providers == ("openai", "gemini", "openai-compatible")
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://x")
    plan = make_plan(Settings(agents=("four_agents",)))
    assert (plan.providers, plan.missing) == ((), {})
    assert "the vendors are called" in dev_module._describe_models(plan)


def test_rules_replace_all_providers(agents, monkeypatch):
    """If a person gives rules, the rules answer, also if keys are set."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    plan = make_plan(Settings(agents=("four_agents",)), ("--rules", "mine:answer"))
    assert plan.providers[0] == "anthropic"
    assert "by mine:answer" in dev_module._describe_models(plan)


def test_each_provider_that_needs_something_can_be_simulated():
    """A new provider that needs a key has a line in both tables."""
    assert set(NEEDED) == set(SIMULATED)


def test_without_agents_the_hello_agent_runs():
    """`midwatch dev` without MIDWATCH_AGENTS shows something."""
    assert make_plan(Settings(agents=())).agents == "midwatch.workers.demo.hello"


def test_credentials_in_a_file_count(tmp_path):
    """`midwatch.toml` is as good as the environment."""
    (tmp_path / "midwatch.toml").write_text('ANTHROPIC_API_KEY = "k"\n')
    found = Settings(agents=("four_agents",))
    assert "ANTHROPIC_API_KEY" not in find_missing(found, load_agents(found))


@pytest.mark.parametrize(
    ("field", "option"), [("flower_port", "--port"), ("redis_port", "--redis-port"), ("model_port", "--model-port")]
)
def test_a_taken_port_is_named_with_its_option(field, option):
    """The error says which program can't listen, and how to choose another port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        free = {"redis_port": _free(), "model_port": _free(), "flower_port": _free()}
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is taken.*{option}$"):
            dev_module.run_dev(DevPlan("x", "mw", providers=("anthropic",), **{**free, field: port}))


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def conversation(*turns: ConversationTurn, **more: object) -> Conversation:
    return Conversation("openai-chat", "m", "", turns, **more)  # type: ignore[arg-type]


def test_the_stand_in_says_that_it_is_simulated():
    """It calls each tool once. The answer holds the results, and can't be taken for a vendor's."""
    user, tools = ConversationTurn("user", "When?"), (ToolOffer("tide"),)
    assert answer(conversation(user, tools=tools)) == Use([("tide", {})])
    called = SimulatedCall("c1", "tide", "{}")
    turns = (user, ConversationTurn("assistant", calls=(called,)), ConversationTurn("tool", "at five", call=called))
    said = answer(conversation(*turns, tools=tools))
    assert isinstance(said, Say)
    assert said.text == "[simulated answer, no vendor was called] tide returned: at five"
    assert answer(conversation(user)).text.endswith("No tool was offered.")


def test_an_answer_with_a_schema_stays_valid():
    """Words before the JSON would break it."""
    said = answer(conversation(ConversationTurn("user", "x"), output_schema={"type": "object", "properties": {}}))
    assert said == Say("{}")
