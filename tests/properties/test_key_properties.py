"""Different ids of a fleet have different keys, for all names that users may choose."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midwatch.orchestration.client.new_job import check_id
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.keyspace import DOWNSTREAM_PARTS, JOB_PARTS, PARTITIONS, SESSION_PARTS, Keyspace
from midwatch.orchestration.protocol.addresses import own_session_id
from midwatch.orchestration.store.step_keys import step_keys
from midwatch.schemas.step import Priority, StepRef

KEYS = Keyspace("mw")
WORDS = ("x", "y", "job", "session", "at", "lineage", "index", *SESSION_PARTS, *JOB_PARTS, *DOWNSTREAM_PARTS)

ids = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(":".join)
"""Ids of jobs and sessions. All of them are valid."""

model_names = st.tuples(
    ids, st.sampled_from(["", "~", "~~", ":free", "/x", "{mw07}", "*", "[a]", "?", "|1", "\\", "%7C"])
).map("".join)
"""Names of downstreams: a model's name may hold any printable character."""


def keys_of_session(session_id: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for kind in (KEYS.session, KEYS.log, KEYS.waiting, KEYS.memory, KEYS.archive, KEYS.results, KEYS.originals):
        yield kind(session_id), (kind.__name__, session_id)


def keys_of_job(job_id: str, session_id: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The keys of a job. In another partition, it would be another job."""
    place = KEYS.session(session_id).partition("}")[0]
    for kind in (KEYS.job, KEYS.steps, KEYS.trace):
        yield kind(session_id, job_id), (kind.__name__, place, job_id)
    yield KEYS.job_pointer(job_id), ("pointer", job_id)
    yield KEYS.lineage(job_id), ("lineage", job_id)


def keys_of_fleet() -> Iterator[tuple[str, tuple[str, ...]]]:
    for p in range(PARTITIONS):
        for name in ("due", "owed", "jobs", "dead", "letters", "redrive", "unreadable", "begun", "counters", "drift:1"):
            yield KEYS.index(p, name), ("index", str(p), name)
    for kind in (
        KEYS.gate_index,
        KEYS.redrive,
        KEYS.redrive_lease,
        KEYS.tools_served,
        KEYS.looked_over,
        KEYS.data_mark,
        KEYS.poison,
    ):
        yield kind(), (kind.__name__,)
    for priority in Priority:
        yield KEYS.backlog(priority), ("backlog", priority)
        yield KEYS.backlog_tenants(priority), ("tenants", priority)
    for queue in ("model", "tools", "maintenance"):
        yield KEYS.queue(queue), ("queue", queue)


def keys_of_downstream(name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for key, part in zip(KEYS.downstream(name), ("", *DOWNSTREAM_PARTS), strict=False):
        yield key, ("downstream", name, part)


@given(st.lists(ids, max_size=4), st.lists(st.tuples(ids, ids), max_size=4), st.lists(model_names, max_size=4))
@example(["x", "x:log", "x:waiting", "x:log:log"], [("j", "x"), ("j:steps", "x"), ("j:trace:steps", "x")], ["q"])
@example([], [], ["jira", "jira:calls", "jira:calls~", "jira:calls:calls", "openai-compatible:org/model:free"])
def test_two_things_never_have_the_same_key(
    sessions: list[str], jobs: list[tuple[str, str]], downstreams: list[str]
) -> None:
    """Sessions, jobs, downstreams and the fleet's own keys. An id may end like the name of another key."""
    found: dict[str, tuple[str, ...]] = {}
    pairs = [*keys_of_fleet()]
    pairs += [pair for one in sessions for pair in keys_of_session(one)]
    pairs += [pair for job in jobs for pair in (*keys_of_job(*job), *keys_of_session(job[1]))]
    pairs += [pair for one in downstreams for pair in keys_of_downstream(one)]
    for key, thing in pairs:
        assert found.setdefault(key, thing) == thing, key


@given(ids, ids)
def test_step_keys_are_those_of_the_keyspace(job_id: str, session_id: str) -> None:
    """The keys of a step and the single key functions agree."""
    keys = step_keys(KEYS, StepRef(job_id=job_id, session_id=session_id, step="1"))
    assert (keys.job, keys.steps, keys.trace) == tuple(
        key(session_id, job_id) for key in (KEYS.job, KEYS.steps, KEYS.trace)
    )
    assert (keys.session, keys.log, keys.waiting) == tuple(
        key(session_id) for key in (KEYS.session, KEYS.log, KEYS.waiting)
    )


@given(ids, model_names)
def test_only_the_first_braces_are_a_hash_tag(session_id: str, model: str) -> None:
    """Redis Cluster hashes what the first braces hold. A user's name can't move a key to another slot."""
    tags = {re.search(r"\{(.*?)\}", key)[1] for key, _ in keys_of_session(session_id)}  # type: ignore[index]
    assert len(tags) == 1
    assert all(key.startswith("mw:{mwgate}:") for key in KEYS.downstream(model))


@given(ids.map(lambda name: f"job-{name}") | ids, ids.map(lambda name: f"job-{name}") | ids)
@example("job-1", "session-1")
@example("xjob-1", "xsession-1")
def test_jobs_without_a_session_have_different_sessions(one: str, other: str) -> None:
    """A job's own session belongs to no other job, and its id is valid."""
    assert (own_session_id(one) == own_session_id(other)) == (one == other)
    assert check_id(own_session_id("job-" + "x" * 124), "session_id")


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "a\n", "a\0", "a{mw07}", "a*", "a[b]", "a?", "a|b", "a/b", "a~", ":a", "é", "\ud800", "x" * 129],
)
def test_an_id_that_is_no_plain_text_is_refused(text: str) -> None:
    """Braces, globs, bars, blanks, control characters and surrogates are refused in words before a key is built."""
    with pytest.raises(ConfigError, match="expected 1 to 128 letters"):
        check_id(text, "session_id")
