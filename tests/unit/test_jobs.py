"""New jobs: ids, limits, input. Invalid values are refused, and the message says what to do."""

from __future__ import annotations

import pytest

from midwatch import Agent, RunLimits
from midwatch.orchestration.client.new_job import keyed_job_id, new_id, new_job
from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.contract import MAX_INPUT_BYTES
from midwatch.schemas.job import SessionPolicy

AGENT = Agent(
    "clerk", "scripted:m-1", "You help.", limits=RunLimits(max_steps=7, session_timeout_s=1.5, on_busy="reject")
)


def test_limits_become_absolute_numbers():
    """The job keeps the agent's limits of the moment it was made."""
    job = new_job(AGENT, "hi")
    assert (job.agent, job.agent_version, job.max_steps, job.timeout_ms) == ("clerk", AGENT.version, 7, 1_500)
    assert job.on_busy is SessionPolicy.REJECT


def test_a_job_made_by_agent_name_has_no_version_yet():
    """A worker with the agent fills it in."""
    assert new_job("clerk", "hi").agent_version == ""


def test_a_job_without_a_session_gets_a_new_one():
    """The session id is derived from the job id."""
    job = new_job(AGENT, "hi")
    assert job.session_id == job.job_id.replace("job-", "session-")


def test_ids_are_uuids_that_sort_by_time():
    """They are UUIDs of version 7 and variant 2 (RFC 9562)."""
    ids = [new_id("job") for _ in range(500)]
    assert len(set(ids)) == 500
    digits = ids[0].removeprefix("job-")
    assert (len(digits), digits[12]) == (32, "7")
    assert digits[16] in "89ab"
    assert ids[0][:15] <= ids[-1][:15]


def test_a_key_gives_one_job_id_for_each_agent_and_tenant():
    """The same key with another agent or tenant gives another id."""
    ids = {keyed_job_id("clerk", None, "k"), keyed_job_id("clerk", "t", "k"), keyed_job_id("clerk2", None, "k")}
    assert len(ids) == 3
    assert new_job(AGENT, "hi", idempotency_key="k").job_id == new_job("clerk", "other", idempotency_key="k").job_id
    assert keyed_job_id("a", "b", "c") != keyed_job_id("ab", "", "c")


@pytest.mark.parametrize("bad", ["", "a b", "{tag}", "a/b", "a|b", "x" * 129, "-a", "é", "a\n"])
@pytest.mark.parametrize("what", ["session_id", "tenant", "idempotency_key", "job_id"])
def test_an_id_that_could_break_a_key_is_refused(what, bad):
    """Braces are hash tags on a cluster, and a bar separates the fields of an index entry."""
    if what == "job_id" and not bad:
        return  # an empty job id means a new one
    with pytest.raises(ConfigError, match=what):
        new_job(AGENT, "hi", **{what: bad})


def test_an_unknown_priority_is_refused():
    """The message lists the valid ones."""
    with pytest.raises(ConfigError, match="high, normal, low"):
        new_job(AGENT, "hi", priority="urgent")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected text"),
        ("  \n", "expected text"),
        (None, "NoneType"),
        ("\ud800", "surrogate"),
        ("é" * 600_000, "1,200,000"),
    ],
)
def test_an_unreadable_input_is_refused(text, says):
    """It is refused if it is empty, not text, not encodable, or too long. A megabyte is accepted."""
    with pytest.raises(ConfigError, match=says):
        new_job(AGENT, text)
    assert new_job(AGENT, "x" * MAX_INPUT_BYTES)
