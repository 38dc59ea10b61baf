"""The agents of a process: find them by name, load them from modules."""

from __future__ import annotations

import sys

import pytest

from midwatch import Agent
from midwatch.orchestration.agents.registry import Registry, load_agents
from midwatch.orchestration.errors import ConfigError, UnknownAgent


def agent(name="clerk", prompt="You help.", **fields):
    return Agent(name, "scripted:m-1", prompt, **fields)


def test_an_agent_is_found_by_name_and_its_children_with_it():
    """Children of any depth are found."""
    scout = agent("scout")
    chief = agent("chief", children=[agent("captain", children=[scout])])
    registry = Registry([chief])
    assert {one.name for one in registry} == {"chief", "captain", "scout"}
    assert registry.find("scout") is scout
    assert "scout" in registry


def test_an_unknown_agent_is_refused_with_the_nearest_name():
    """The message also says which variable to set."""
    with pytest.raises(UnknownAgent, match=r"did you mean 'clerk'\?.*MIDWATCH_AGENTS"):
        Registry([agent()]).find("clark")
    with pytest.raises(UnknownAgent, match="loaded: none"):
        Registry().find("clerk")


def test_two_different_agents_of_one_name_are_refused():
    """The same agent twice is fine, since modules import each other's agents."""
    registry = Registry([agent(), agent()])
    with pytest.raises(ConfigError, match="two different agents are named 'clerk'"):
        registry.add(agent(prompt="You don't."))


MODULE = """
from midwatch import Agent
clerk = Agent("clerk", "scripted:m-1", "You help.")
crew = [clerk, Agent("scout", "scripted:m-1", "You scout.")]
nothing = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with agents in the working directory."""
    (tmp_path / "my_crew.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "my_crew"
    sys.modules.pop("my_crew", None)


@pytest.mark.parametrize(
    ("spec", "names"),
    [("my_crew", {"clerk", "scout"}), ("my_crew:clerk", {"clerk"}), (" my_crew:crew ", {"clerk", "scout"})],
)
def test_agents_are_loaded_from_a_module_of_the_working_directory(module, spec, names):
    """A spec names all agents of a module, one agent, or a list of agents."""
    assert {one.name for one in load_agents([spec])} == names


@pytest.mark.parametrize(
    ("spec", "says"),
    [("my_crew:nothing", "holds no Agent"), ("my_crew:missing", "holds no Agent"), ("no_such_module", "can't import")],
)
def test_a_wrong_spec_is_refused_at_boot(module, spec, says):
    """The message contains the spec."""
    with pytest.raises(ConfigError, match=says):
        load_agents([spec])
