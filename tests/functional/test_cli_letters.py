"""`midwatch dlq list` with conditions, on a real server."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable

import pytest

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.client.client import connect as connect_client
from midwatch.orchestration.client.letters import bulk_replay
from midwatch.orchestration.protocol.commits import Ending
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.celery_app.poison import PoisonList
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


def end(client: Client, job_id: str, **fields: object) -> None:
    """Run a job's first step: it becomes a letter."""
    ref = client.operations.first_step(client.jobs.show(job_id))
    claim = client.store.claim(ref, f"nonce-{secrets.token_hex(4)}")
    failure = Failure(kind=FailureKind(fields.pop("kind", "overloaded")), detail="why")
    letter = DeadLetterRecord(
        **({"job_id": job_id, "session_id": ref.session_id, "agent": claim.job.agent, "step": "1", "kind": "model",
            "failure": failure, "dead_ms": claim.now_ms} | fields),
    )  # fmt: skip
    trace = TraceRecord(
        step="1", kind="model", attempt=0, outcome="dead_letter", started_ms=1, ended_ms=2, worker="w1", failure=failure
    )
    assert client.store.finish(claim, Ending(JobStatus.DEAD_LETTERED, failure=failure, letter=letter), trace)


def bury(client: Client, agent: str = "desk", kind: str = "overloaded", **fields: object) -> str:
    """Make a dead letter and return its job's id."""
    handle = client.enqueue(agent, "Where is my parcel?")
    end(client, handle.id, kind=kind, **fields)
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


def test_replay_needs_ids_or_all(run):
    """Conditions and a rate are for many letters. A condition names what a letter has."""
    for arguments, said in (
        ((), "expected IDs of jobs, or --all"),
        (("job-1", "--all"), "expected IDs of jobs, or --all"),
        (("job-1", "--rate", "5/s"), "need --all"),
        (("--all", "--rate", "fast"), "such as 5/s"),
        (("--all", "--where", "timeout"), "expected NAME=VALUE"),
        (("--all", "--where", "color=red"), "kind, agent, model, tool, downstream, older"),
        (("--all", "--where", "kind=timeuot"), "did you mean 'timeout'"),
    ):
        code, out, err = run("dlq", "replay", *arguments)
        assert (code, out) == (2, ""), arguments
        assert said in err, arguments


def test_dry_run_counts_the_letters_by_kind_and_replays_none(run, client):
    """The document has the same fields as that of a replay."""
    letters = [bury(client, downstream="shop") for _ in range(3)] + [bury(client, "support-eu", "tool_error")]
    code, out, _ = run("dlq", "replay", "--all", "--dry-run", "--json")
    found = json.loads(out)
    assert (code, found["letters"], found["replayed"], found["dry_run"]) == (0, 4, 0, True)
    assert [(group["kind"], group["downstream"], group["agent"], group["letters"]) for group in found["groups"]] == [
        ("overloaded", "shop", None, 3),
        ("tool_error", None, "support-eu", 1),
    ]
    _, out, _ = run("dlq", "replay", "--all", "--dry-run", "--where", "agent=support-*")
    assert out.splitlines() == ["KIND\tAT\tLETTERS", "tool_error\tsupport-eu\t1"]
    assert sorted(letter.job_id for letter in client.dead_letters.list()) == sorted(letters)


def test_replay_of_all_goes_below_live_work(run, client, monkeypatch):
    """Nobody runs the jobs here, so the command ends without their results, and says so."""
    monkeypatch.setattr(bulk_replay, "SETTLE_S", 0.1)
    letters = [bury(client) for _ in range(3)]
    code, out, _ = run("dlq", "replay", "--all", "--json", "--where", "agent=desk", "--where", "older=1s")
    assert (code, json.loads(out)["replayed"]) == (0, 0), "they are younger than a second"
    code, out, _ = run("dlq", "replay", "--all", "--json", "--steps", "70", "--time", "2h")
    found = json.loads(out)
    assert (code, found["replayed"], found["under_way"], found["left"]) == (0, 3, 3, 0)
    jobs = [client.jobs.show(job_id) for job_id in letters]
    assert {job.priority.value for job in jobs} == {"replay"}
    assert {job.max_steps for job in jobs} == {71}, "the grants are those of a single replay"


def test_replay_that_fails_again_stops_with_exit_code_1(run, client):
    """Of seven letters five are tried. The message says what to do."""
    for _ in range(7):
        bury(client, downstream="shop")
    stop = threading.Event()

    def fail_all() -> None:
        while not stop.is_set():
            for job in client.jobs.list(limit=100):
                if not job.status.ended:
                    end(client, job.job_id, downstream="shop")
            stop.wait(0.05)

    fleet = threading.Thread(target=fail_all)
    fleet.start()
    try:
        code, out, err = run("dlq", "replay", "--all")
    finally:
        stop.set()
        fleet.join()
    assert code == 1
    assert "stopped: overloaded at shop fails again" in err
    assert "2 letters left as they were. Mend the cause, then replay again" in err
    assert out.splitlines()[1].split("\t")[:4] == ["overloaded", "shop", "7", "5"]
    assert len(client.dead_letters.list()) == 7


def test_poison_is_discarded_and_an_alarm_on_its_number_ends(client: Client, run: Run):
    """One by its id, all with --poison. `dlq list --json` and `doctor` count what is left. A second discard finds nothing."""
    messages = PoisonList(client.store.client, client.operations.keys.poison())
    for number in range(3):
        messages.keep("mw.model", b"no json %d" % number, "not a task message")
    run("dlq", "list")  # prints the log lines of `keep`, too
    one, *_ = json.loads(run("dlq", "list", "--json")[1])["poison"]
    assert f"midwatch dlq discard {one['poison_id']}" in " ".join(run("dlq", "show", one["poison_id"])[1].split())
    assert "3 poison messages" in run("doctor")[1]
    assert run("dlq", "discard", one["poison_id"])[0] == 0
    assert run("dlq", "discard", one["poison_id"])[0] == 3
    left = json.loads(run("dlq", "list", "--json")[1])["poison"]
    assert len(left) == 2
    assert one["poison_id"] not in {each["poison_id"] for each in left}
    assert "2 poison messages discarded" in run("dlq", "discard", "--poison")[2]
    assert "0 poison messages discarded" in run("dlq", "discard", "--poison")[2]
    assert json.loads(run("dlq", "list", "--json")[1])["poison"] == []
    assert "no poison messages" in run("doctor")[1]
    assert run("dlq", "discard")[0] == run("dlq", "discard", "job-1", "--poison")[0] == 2


def test_poison_is_shown_and_discarded_by_the_beginning_of_its_id(client: Client, run: Run):
    """The table shows short ids. A beginning that fits several is refused with the candidates, and discards nothing."""
    messages = PoisonList(client.store.client, client.operations.keys.poison())
    for number in range(3):
        messages.keep("mw.model", b"no json %d" % number, "not a task message")
    run("dlq", "list")
    kept = [each["poison_id"] for each in json.loads(run("dlq", "list", "--json")[1])["poison"]]
    for command in ("show", "discard"):
        code, _, err = run("dlq", command, "poison-")
        assert (code, "fits 3 poison messages" in err, kept[0] in err) == (2, True, True)
    short = next(kept[0][:size] for size in range(20, 40) if sum(one.startswith(kept[0][:size]) for one in kept) == 1)
    assert kept[0] in run("dlq", "show", short)[1]
    assert kept[0] in run("dlq", "discard", short)[2]
    assert [each["poison_id"] for each in json.loads(run("dlq", "list", "--json")[1])["poison"]] == kept[1:]


def test_poison_that_can_not_be_read_is_discarded_with_all(client: Client, run: Run):
    """A damaged record has no id that could be named."""
    client.store.client.lpush(client.operations.keys.poison(), "damaged")
    client.store.client.expire(client.operations.keys.poison(), 60)
    messages = PoisonList(client.store.client, client.operations.keys.poison())
    assert not messages.discard("damaged")
    assert "1 poison message discarded" in run("dlq", "discard", "--poison")[2]
