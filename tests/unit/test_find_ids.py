"""Ids are shown short and taken as prefixes. What is ambiguous is refused with the candidates."""

from __future__ import annotations

import pytest

from midwatch import Agent, Client
from midwatch.errors import ConfigError
from midwatch.orchestration.client.jobs import only_match
from midwatch.testing import InlineFleet, ScriptedModel
from midwatch.workers.views.output import SHORT_ID_CHARS, shorten_ids

AGENT = Agent("clerk", "scripted:m-1", "You help.")


@pytest.fixture
def fleet():
    return InlineFleet(AGENT, model=ScriptedModel([]))


@pytest.fixture
def client(fleet):
    return Client(store=fleet.store, operations=fleet.operations)


def test_the_short_form_finds_the_job(fleet, client):
    """What a list shows can be copied into any command."""
    job_id = fleet.enqueue(AGENT, "x", session_id="sailor-17")
    short = shorten_ids(job_id)
    assert (len(short), job_id.startswith(short)) == (SHORT_ID_CHARS, True)
    assert client.jobs.find_id(short) == client.jobs.find_id(job_id) == job_id
    assert client.sessions.find_id("sailor") == "sailor-17"


def test_what_fits_no_job_stays_as_it_is(fleet, client):
    """The command then says that there is no such job, in its own words."""
    fleet.enqueue(AGENT, "x")
    for text in ("nosuch-job", "", "job-zz", "{}", "a b"):
        if text:
            assert client.jobs.find_id(text) == text
            assert client.sessions.find_id(text) == text


def test_an_ambiguous_prefix_lists_the_candidates(fleet, client):
    """The reader sees which jobs it fits, and gives more characters."""
    ids = [fleet.enqueue(AGENT, "x") for _ in range(3)]
    with pytest.raises(ConfigError, match=r"'job-' fits 3 jobs: job-.*; give more characters") as raised:
        client.jobs.find_id("job-")
    assert all(job_id in str(raised.value) for job_id in ids)
    with pytest.raises(ConfigError, match="and 2 more"):
        only_match("a", [f"a{n}" for n in range(7)], "jobs")


def test_a_whole_id_wins_over_longer_ones(fleet, client):
    """A session `s1` is found although `s10` begins with it."""
    for session in ("session-1", "session-10"):
        fleet.enqueue(AGENT, "x", session_id=session)
    assert client.sessions.find_id("session-1") == "session-1"


@pytest.mark.parametrize("text", ["sailor-17", "job-short", "2 m", "job-" + "g" * 32, ""])
def test_only_ids_that_midwatch_made_are_shortened(text):
    """An id that a user chose is copied whole. Other cells are no ids."""
    assert shorten_ids(text) == text


def test_ids_inside_a_reason_are_shortened_too():
    """The reason names another job, and still fits its line."""
    text = "behind job job-01a22b99c52974b9a784b487e487a342 of its session, which is running"
    assert shorten_ids(text) == "behind job job-01a22b99c52974b9 of its session, which is running"
