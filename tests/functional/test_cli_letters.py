"""`midwatch dlq list` with conditions, on a real server."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.client.client import connect as connect_client
from midwatch.orchestration.protocol.commits import Ending
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import StepRef
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.cli.__main__ import main
from midwatch.workers.settings import settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def client(prefix) -> Client:
    """A producer of this test's fleet."""
    settings.cache_clear()
    made = connect_client()
    yield made
    made.store.client.close()
    settings.cache_clear()


@pytest.fixture
def run(client, capsys, monkeypatch, tmp_path) -> Run:
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        out = capsys.readouterr()
        return code, out.out, out.err

    return command


def bury(client: Client, agent: str = "desk", kind: str = "overloaded", **fields: object) -> str:
    """Make a dead letter and return its job's id."""
    handle = client.enqueue(agent, "Where is my parcel?")
    claim = client.store.claim(StepRef(job_id=handle.id, session_id=handle.session_id, step="1"), "nonce")
    failure = Failure(kind=FailureKind(kind), detail="why")
    letter = DeadLetterRecord(
        **({"job_id": handle.id, "session_id": handle.session_id, "agent": agent, "step": "1", "kind": "model",
            "failure": failure, "dead_ms": claim.now_ms} | fields),
    )  # fmt: skip
    trace = TraceRecord(
        step="1", kind="model", attempt=0, outcome="dead_letter", started_ms=1, ended_ms=2, worker="w1", failure=failure
    )
    assert client.store.finish(claim, Ending(JobStatus.DEAD_LETTERED, failure=failure, letter=letter), trace)
    return handle.id


def listed(out: str) -> list[str]:
    return [letter["job_id"] for letter in json.loads(out)["dead_letters"]]


def test_letters_are_filtered_by_every_condition(run, client):
    """The newest is first. The document is the same as without pages."""
    first = bury(client, downstream="anthropic:m", model="anthropic:m")
    second = bury(client, "support-eu", "tool_error", tool="refund")
    assert listed(run("dlq", "list", "--json")[1]) == [second, first]
    for condition, found in (
        (("--kind", "tool_error"), [second]),
        (("--kind", "tool_error", "--kind", "overloaded"), [second, first]),
        (("--agent", "support-*"), [second]),
        (("--model", "m"), [first]),
        (("--tool", "re*"), [second]),
        (("--downstream", "anthropic:*"), [first]),
        (("--older", "2h"), []),
        (("--limit", "1"), [second]),
    ):
        code, out, err = run("dlq", "list", "--json", *condition)
        assert (code, listed(out), err) == (0, found, ""), condition
    _, out, _ = run("dlq", "list", "--agent", "support-*")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["JOB", second]


def test_unknown_kind_has_exit_code_2_and_lists_the_kinds(run):
    """So does a time that can't be read."""
    code, out, err = run("dlq", "list", "--kind", "timeuot")
    assert (code, out) == (2, "")
    assert "did you mean 'timeout'" in err
    assert "max_steps" in err
    assert run("dlq", "list", "--older", "long")[0] == 2


def test_letter_shows_who_replays_it(run, client):
    """A letter that heals itself says so. One that was redriven in vain says that it waits for a human."""
    healing = bury(client, redrive=True, downstream="anthropic:m")
    spent = bury(client, generation=3)
    assert "redrive\tauto: it is replayed when its cause has passed" in run("dlq", "show", healing)[1]
    shown = run("dlq", "show", spent)[1]
    assert "redrive\tit was replayed without a human 3 times, and failed again; it waits for you" in shown
    rows = [line.split("\t") for line in run("dlq", "list")[1].splitlines()]
    column = rows[0].index("REDRIVE")
    assert [(row[0], row[column]) for row in rows[1:]] == [(spent, "3 failed"), (healing, "auto")]


def test_damaged_letter_is_reported_and_does_not_end_the_listing(run, client):
    """The document has it under `unreadable`, after the letters."""
    first, second = bury(client), bury(client)
    ref = client.operations.first_step(client.jobs.show(first))
    key = client.operations.keys.session(ref.session_id).split(":session:")[0] + ":letters"
    client.store.client.hset(key, first, '{"v": 7}')
    code, out, err = run("dlq", "list", "--json")
    assert (code, listed(out)) == (0, [second])
    assert [each["what"] for each in json.loads(out)["unreadable"]] == [f"the dead letter of job {first}"]
    assert "can't be read" in err
