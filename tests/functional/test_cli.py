"""The command line against a real server, without a worker: its output and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from midwatch import Client
from midwatch.orchestration.client.handle import JobHandle
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.commits import CallRow, TurnCommit
from midwatch.orchestration.protocol.store_replies import TurnCommitted
from midwatch.orchestration.steps import endings
from midwatch.schemas.deadletter import PoisonRecord
from midwatch.schemas.decision import ParkReason
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import AssistantMessage, Text, ToolCall
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Park, StepRef
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.celery_app.dispatch import connect
from midwatch.workers.cli import main
from midwatch.workers.settings import settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def client(prefix) -> Client:
    """A producer of this test's fleet."""
    settings.cache_clear()
    made = connect()
    yield made
    made.store.client.close()
    settings.cache_clear()


@pytest.fixture
def run(client, capsys, monkeypatch, tmp_path) -> Run:
    """`run("jobs", "list")` returns exit code, stdout and stderr. It runs in an empty directory, without a midwatch.toml."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        out = capsys.readouterr()
        return code, out.out, out.err

    return command


def claim_job(
    client: Client, agent: str = "desk", session: str | None = None, parent: JobHandle | None = None
) -> Claim:
    """Enqueue a job and claim its first step, as a worker does."""
    handle = client.enqueue(agent, "Where is my parcel?", session_id=session, parent=parent)
    claim = client.store.claim(StepRef(job_id=handle.id, session_id=handle.session_id, step="1"), "nonce")
    assert isinstance(claim, Claim)
    return claim


def trace_of(claim: Claim, outcome: str, **more: object) -> TraceRecord:
    """Make the record of one step."""
    return TraceRecord(
        step=claim.ref.step,
        kind=claim.ref.kind,
        attempt=0,
        outcome=outcome,
        started_ms=claim.now_ms,
        ended_ms=claim.now_ms + 40,
        worker="w1",
        **more,
    )


def make_dead_letter(client: Client, session: str | None = None) -> str:
    """Make a dead letter and return its job's id."""
    claim = claim_job(client, session=session)
    failure = Failure(kind="auth_error", detail="401: the key is not valid", request_id="req_1")
    ending = endings.make_ending(claim, failure, dead_ms=claim.now_ms, worker="w1")
    assert client.store.finish(claim, ending, trace_of(claim, "dead_letter", failure=failure))
    return claim.ref.job_id


def park_job(client: Client, parent: JobHandle | None = None) -> str:
    """Make a job whose only tool call waits for a human, and return its id."""
    claim = claim_job(client, "pay", parent=parent)
    call = ToolCall(id="c1", name="refund", raw_arguments='{"order":"O-1","cents":4990}')
    said = AssistantMessage(group=claim.group, parts=(Text(text="I refund it."), call), provider="p", model="m")
    turn = TurnCommit(
        messages=(said,),
        calls=(CallRow(ordinal=0, call=call),),
        usage=Usage(input_tokens=1_200, output_tokens=30),
        trace=trace_of(claim, "continue", model="m", tools=("refund",), usage=Usage(input_tokens=1_200)),
        tool_calls=1,
    )
    assert client.store.commit_turn(claim, turn) is TurnCommitted.COMMITTED
    step = client.store.claim(claim.ref.call(0), "nonce")
    assert isinstance(step, Claim)
    park = Park(question="May refund run?", reason=ParkReason.TOOL_APPROVAL)
    assert client.store.park(step, park, trace_of(step, "park", tool="refund", reason=ParkReason.TOOL_APPROVAL))
    return claim.ref.job_id


def test_submit_prints_the_id_and_a_repeated_key_the_same_id(run):
    """Stdout has one line, for scripts. A note on stderr says that the job already exists."""
    code, first, said = run("submit", "desk", "Where is it?", "--key", "k1", "--session", "S1", "--tenant", "acme")
    assert (code, said) == (0, "")
    code, second, said = run("submit", "desk", "Where is it?", "--key", "k1", "--tenant", "acme")
    assert (code, second) == (0, first)
    assert "exists already" in said
    code, out, _ = run("submit", "desk", "again", "--json", "--priority", "high")
    assert code == 0
    assert json.loads(out)["accepted"] is True


def test_submit_reads_a_file_or_explains_why_it_can_not(run, client, tmp_path):
    """`@FILE` is replaced by the file's text. A missing file and a file that is not text are usage errors."""
    (tmp_path / "in.txt").write_text("Ein Brief: schön.", "utf-8")
    code, job_id, _ = run("submit", "desk", "@in.txt")
    assert code == 0
    claim = client.store.claim(client.operations.first_step(client.jobs.show(job_id.strip())), "n")
    assert claim.log[0].text == "Ein Brief: schön."
    (tmp_path / "in.bin").write_bytes(b"\xff\xfe")
    for given, said in (("@missing", "No such file"), ("@in.bin", "not UTF-8"), ("  ", "expected text")):
        code, _, err = run("submit", "desk", given)
        assert code == 2
        assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("my agent", "x"), "'my agent': expected a letter"),
        (("desk", "x", "--session", "a b"), "session_id='a b'"),
        (("desk", "x", "--priority", "urgent"), "'urgent' is not one of"),
        (("desk", "x", "--timeout", "3"), "add --wait"),
    ],
)
def test_submit_refuses_what_could_never_run(run, arguments, said):
    """The exit code is 2, and the message says what was expected."""
    code, _, err = run("submit", *arguments)
    assert code == 2
    assert said in err


def test_a_wait_that_times_out_reports_the_jobs_state(run, client):
    """The exit code is 6 when the time is up. That the job goes on is not an error."""
    code, out, err = run("submit", "desk", "x", "--wait", "--timeout", "0.05")
    assert (code, out) == (6, "")
    assert "it goes on" in err


def test_jobs_are_listed_filtered_and_shown(run, client):
    """The newest job is first, as rows for people and as one document for programs."""
    letter, question = make_dead_letter(client), park_job(client)
    code, out, _ = run("jobs", "list")
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == ["JOB", question, letter]
    assert "auth_error: 401" in out
    code, out, _ = run("jobs", "list", "--status", "dead_lettered", "--json")
    listed = json.loads(out)["jobs"]
    assert [job["job_id"] for job in listed] == [letter]
    assert listed[0]["created_at"].endswith("Z")
    code, out, _ = run("jobs", "list", "--agent", "nobody")
    assert (code, out) == (0, "")
    code, out, _ = run("jobs", "show", question, "--json")
    waiting = json.loads(out)["waiting"]
    assert waiting.pop("since").endswith("Z")
    assert waiting == {
        "step": "1.0", "reason": "tool_approval: May refund run?", "kind": "tool_approval", "until": None, "attempt": 0,
        "owner": "human", "downstream": None, "on_expiry": None,
    }  # fmt: skip
    code, out, _ = run("jobs", "show", letter)
    assert "status\tdead_lettered" in out


def test_an_unknown_id_has_exit_code_3(run):
    """Every command that takes an id prints one line that says where to look."""
    for arguments in (
        *(("jobs", "show"), ("jobs", "tail"), ("jobs", "cancel"), ("trace",)),
        *(("dlq", "show"), ("dlq", "replay"), ("dlq", "discard"), ("sessions", "show"), ("sessions", "export")),
        *(("approvals", "approve"), ("approvals", "reject")),
    ):
        code, out, err = run(*arguments, "job-none")
        assert (code, out, err.count("\n")) == (3, "", 1), arguments
    assert run("dlq", "show", "poison-none")[0] == 3


def test_a_name_that_fits_nothing_is_said_by_every_listing(run, client):
    """A mistyped agent does not look like a quiet fleet. The words name what was asked for. Patterns fit as in `dlq list`."""
    client.enqueue("support-refunds", "x")
    for arguments in (("jobs", "list"), ("findings",)):
        code, out, err = run(*arguments, "--agent", "nosuch")
        assert (code, out, "fits agent nosuch" in err) == (0, "", True), arguments
    assert "fits these conditions" in run("dlq", "list", "--agent", "nosuch")[2]
    assert "no finding fits model nosuch-*" in run("findings", "--model", "nosuch-*")[2]
    assert run("findings")[2] == "no findings\n"
    assert "support-refunds" in run("jobs", "list", "--agent", "support-*")[1]
    assert "no job fits agent desk-*" in run("jobs", "list", "--agent", "desk-*")[2]


def test_a_dead_letter_is_discarded_by_the_beginning_of_its_id(run, client):
    """What `dlq list` shows on a terminal can be copied into `dlq discard`."""
    letter = make_dead_letter(client)
    assert run("dlq", "discard", letter[:20])[0] == 0
    assert client.dead_letters.list() == []


def test_a_job_is_cancelled_once(run, client):
    """A second cancel succeeds. Cancelling a dead letter gives it up, once."""
    _, out, _ = run("submit", "desk", "x")
    assert run("jobs", "cancel", out.strip())[0] == 0
    code, _, err = run("jobs", "cancel", out.strip())
    assert code == 0
    assert "had ended already: cancelled" in err
    letter = make_dead_letter(client)
    assert run("jobs", "cancel", letter)[0] == 0
    assert client.dead_letters.list() == []
    assert run("jobs", "cancel", letter)[0] == 4


def test_tail_prints_a_line_per_step_and_ends_with_the_job(run, client):
    """`tail` prints JSON Lines: the steps so far, then each new step. It exits at the job's end."""
    letter = make_dead_letter(client)
    code, out, _ = run("jobs", "tail", letter)
    assert code == 0
    (line,) = out.splitlines()
    assert json.loads(line)["outcome"] == "dead_letter"


def test_a_dead_letter_is_shown_replayed_once_and_discarded_once(run, client):
    """A second replay or discard does nothing and succeeds. A discarded letter can't be replayed."""
    letter, other = make_dead_letter(client), make_dead_letter(client)
    code, out, _ = run("dlq", "list", "--json")
    assert {each["job_id"] for each in json.loads(out)["dead_letters"]} == {letter, other}
    code, out, _ = run("dlq", "show", letter)
    assert f"midwatch dlq replay {letter}" in out
    code, out, err = run("dlq", "replay", letter, "job-none")
    assert (code, out) == (3, "")
    assert f"job {letter} goes on" in err
    assert client.jobs.show(letter).status is JobStatus.RUNNING
    code, _, err = run("dlq", "replay", letter)
    assert code == 0
    assert "nothing to replay" in err
    assert run("dlq", "discard", letter)[0] == 4
    assert run("dlq", "discard", other)[0] == 0
    assert run("dlq", "discard", other)[0] == 0
    assert run("dlq", "replay", other)[0] == 4


def test_poison_is_listed_without_sending_its_control_characters(run, client):
    """A poison message may contain anything. Control characters are printed in escaped form."""
    record = PoisonRecord(
        poison_id="poison-1",
        queue="model",
        reason="undecodable",
        body="\x1b[2J no",
        size_bytes=7,
        seen_ms=1,
        worker="w",
    )
    key = client.operations.keys.poison()
    client.store.client.lpush(key, record.model_dump_json())
    client.store.client.expire(key, 60)
    code, out, _ = run("dlq", "list")
    assert code == 0
    assert out.splitlines()[1].startswith("poison-1\tmodel\t7\t")
    code, out, _ = run("dlq", "show", "poison-1")
    assert code == 0
    assert "body\t\\x1b[2J no" in out


def test_an_approver_sees_the_call_and_decides_once(run, client):
    """The listing shows the arguments. The first decision counts, and the second one is refused."""
    job_id = park_job(client)
    _, out, _ = run("approvals", "list", "--json")
    (asked,) = json.loads(out)["approvals"]
    assert (asked["job_id"], asked["tool"], asked["step"]) == (job_id, "refund", "1.0")
    assert json.loads(asked["arguments"]) == {"order": "O-1", "cents": 4990}
    shown = run("approvals", "list")[1]
    assert 'refund({"order":"O-1","cents":4990})' in shown
    titles, row = (line.split("\t") for line in shown.splitlines())
    assert row[titles.index("AGE")].endswith((" ms", " s"))  # how long a person has let it wait
    assert run("approvals", "reject", job_id, "--reason", "too much")[0] == 0
    assert run("approvals", "approve", job_id)[0] == 4
    assert run("approvals", "list", "--json")[1] == '{\n  "approvals": []\n}\n'


def test_an_approval_of_an_orphan_has_exit_code_4_and_says_why(run, client):
    """The parent was cancelled, and its end has not reached the child yet. Nothing runs."""
    parent = client.enqueue("desk", "Lead.")
    job_id = park_job(client, parent)
    client.store.client.hset(client.store.keys.job(parent.session_id, parent.id), "status", "cancelled")
    code, _, said = run("approvals", "approve", job_id)
    assert code == 4
    assert f"its parent, job {parent.id}, was cancelled. Nothing runs." in said
    assert client.jobs.show(job_id).status is JobStatus.PARKED
    assert run("jobs", "cancel", job_id)[0] == 0


def test_trace_shows_each_step_with_its_reason_and_the_totals(run, client):
    """The trace shows the model's text, the reason of a wait, and the totals."""
    code, out, _ = run("trace", park_job(client))
    assert code == 0
    assert "“I refund it.”" in out
    assert "tool_approval" in out
    assert "parked · " in out
    assert "1 tool call in 40 ms" in out
    letter = make_dead_letter(client)
    code, out, _ = run("trace", letter, "--json")
    shown = json.loads(out)
    assert [(step["step"], step["outcome"], step["took_ms"]) for step in shown["steps"]] == [("1", "dead_letter", 40)]
    assert shown["steps"][0]["why"] == "auth_error: 401: the key is not valid"
    assert shown["job"]["job_id"] == letter


def test_a_job_that_has_not_begun_has_an_empty_trace(run):
    """There are no steps yet, so only the totals are printed."""
    _, out, _ = run("submit", "desk", "x")
    code, out, _ = run("trace", out.strip())
    assert code == 0
    assert out.startswith("queued · ")


def test_a_conversation_is_shown_and_exported(run, client):
    """People get headings. Programs get the stored messages unchanged."""
    claim_session = client.jobs.show(park_job(client)).session_id
    code, out, _ = run("sessions", "show", claim_session)
    assert code == 0
    assert "user\nWhere is my parcel?" in out
    assert '→ refund({"order":"O-1","cents":4990})' in out
    code, out, _ = run("sessions", "export", claim_session)
    messages = json.loads(out)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages == [m.model_dump(mode="json") for m in client.sessions.messages(claim_session)]


def test_doctor_reports_unsafe_settings(run, monkeypatch):
    """This server keeps nothing on disk, so the exit code is 1. Agents that can't be imported fail too, with advice."""
    monkeypatch.setenv("MIDWATCH_AGENTS", "no_such_module")
    settings.cache_clear()
    code, out, _ = run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 1
    assert checks["version"]["result"] == "ok"
    assert checks["eviction"]["result"] == "ok"
    assert checks["persistence"]["result"] == "fail"
    assert "no_such_module" in checks["agents"]["found"]
    assert all(check["advice"] for check in checks.values() if check["result"] == "fail")


@pytest.mark.parametrize(
    "arguments", [("jobs", "list"), ("dlq", "list"), ("doctor",), ("submit", "a", "x"), ("trace", "job-x")]
)
def test_a_server_that_is_down_has_exit_code_5_within_seconds(run, monkeypatch, arguments):
    """One line names the setting to check. The command does not hang."""
    monkeypatch.setenv("MIDWATCH_REDIS_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()
    code, out, err = run(*arguments)
    assert (code, out) == (5, "")
    assert "MIDWATCH_REDIS_URL" in err
    assert err.count("\n") == 1
