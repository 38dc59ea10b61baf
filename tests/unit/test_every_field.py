"""The walk: everything that can be declared has an effect, or is refused with what is coming. A new field needs an entry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields

import pytest

from midwatch import Agent
from midwatch.orchestration.client.client import Client
from midwatch.orchestration.tools.declaration import Tool
from midwatch.schemas import policy
from midwatch.schemas.contract import Policy
from midwatch.schemas.job import NewJob, StartEnvelope
from midwatch.validators import JSONSchemaValidator
from midwatch.workers.cli.commands.submit import submit
from midwatch.workers.settings import Settings
from tests.unit import fields_of_agents, fields_of_policies, fields_of_producers, fields_of_settings
from tests.unit.field_stage import Probe


def keywords_of(function: Callable[..., object]) -> set[str]:
    """The names of the parameters that a caller can give."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name for one in parameters if one.name != "self" and one.kind is not one.VAR_KEYWORD}


def policies() -> set[type[Policy]]:
    """Every public policy."""
    found = {one for one in vars(policy).values() if isinstance(one, type) and issubclass(one, Policy)}
    return found - {Policy}


INTERNAL_FIELDS_OF_TOOLS = {"function", "child", "signature"}
"""`@tool` and `as_tool` set them."""

THERE: Mapping[str, set[str]] = {
    **{kind.__name__: set(kind.model_fields) for kind in policies()},
    "tool": {one.name for one in fields(Tool)} - INTERNAL_FIELDS_OF_TOOLS,
    "Agent": keywords_of(Agent.__init__),
    "JSONSchemaValidator": keywords_of(JSONSchemaValidator.__init__),
    "Agent.enqueue": keywords_of(Agent.enqueue),
    "Agent.run": keywords_of(Agent.run),
    "StartEnvelope": set(StartEnvelope.model_fields),
    "NewJob": set(NewJob.model_fields),
    "submit": {str(parameter.name) for parameter in submit.params},
    "Settings": set(Settings.model_fields),
}
"""What can be declared, found by reflection."""

PROBES: Mapping[str, Mapping[str, Probe]] = {
    **{kind.__name__: probes for kind, probes in fields_of_policies.PROBES.items()},
    "tool": fields_of_agents.TOOL,
    "Agent": fields_of_agents.AGENT,
    "JSONSchemaValidator": fields_of_agents.VALIDATOR,
    "Agent.enqueue": fields_of_producers.ENQUEUE,
    "Agent.run": fields_of_producers.RUN,
    "StartEnvelope": fields_of_producers.START,
    "NewJob": fields_of_producers.NEW_JOB,
    "submit": fields_of_producers.SUBMIT,
    "Settings": fields_of_settings.SETTINGS,
}
"""The probe of each."""

ENTRIES = [(f"{owner}.{name}", probe) for owner, probes in PROBES.items() for name, probe in probes.items()]


@pytest.mark.parametrize("owner", sorted(THERE))
def test_every_field_has_an_entry(owner: str) -> None:
    """An entry for a field that is gone fails too."""
    assert set(PROBES[owner]) == THERE[owner]


@pytest.mark.parametrize("probe", [probe for _, probe in ENTRIES], ids=[name for name, _ in ENTRIES])
def test_the_field_has_an_effect_or_is_refused(probe: Probe) -> None:
    """The probe sets the field to two values and sees two results; or sees the refusal; or names the test that does."""
    probe()


def test_a_client_takes_the_keywords_of_an_agent() -> None:
    """`client.enqueue("name", ...)` and `agent.enqueue(...)` differ only in how they name the agent."""
    assert keywords_of(Client.enqueue) - {"agent"} == keywords_of(Agent.enqueue)


def test_the_stored_state_of_equal_jobs_is_equal() -> None:
    """So the probes of `NewJob` see the field and not the time."""
    assert fields_of_producers.stored() == fields_of_producers.stored()


def test_a_second_fallback_model_is_refused() -> None:
    """It would have no effect so far."""
    fields_of_agents.SECOND_FALLBACK()


def test_a_probe_that_points_nowhere_fails() -> None:
    """The name of a test that does not exist is no evidence."""
    from tests.unit.field_stage import differs, shown_by

    with pytest.raises(AssertionError, match="has no test"):
        shown_by("tests/unit/test_ladder.py::test_that_is_not_there")()
    with pytest.raises(AssertionError):
        differs(lambda value: "the same", 1, 2)()
