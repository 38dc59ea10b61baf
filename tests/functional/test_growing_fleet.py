"""A running fleet meets records of a later release and damaged ones. Unknown fields are kept, unreadable jobs end as letters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from midwatch.orchestration.store.step_keys import StepKeys, step_keys
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import StepRef
from midwatch.workers.celery_app.fleet_app import make_app
from midwatch.workers.settings import Settings
from tests.functional.fleet_agents import desk, plain, three_steps, trimming
from tests.functional.fleet_stage import Stage, fleet_on_stage, told, use
from tests.patience import PATIENCE_S

LATER = {"of_a_later_release": {"deep": [1, "two"]}}
SECRET = "my password is hunter2"
TRIES = 30
AGENTS = {"MIDWATCH_AGENTS": "tests.functional.fleet_agents,tests.functional.quick_offers"}


@pytest.fixture(scope="module")
def stage(server, lend_prefix, tmp_path_factory):
    """One worker process that offers an unreadable step again after 20 ms."""
    folder = tmp_path_factory.mktemp("growing")
    kinds = (("model,tools,maintenance", "threads", 8),)
    with lend_prefix() as prefix, fleet_on_stage(server.url, prefix, folder, kinds, AGENTS) as stage:
        yield stage


def keys_of(stage: Stage, handle: Any) -> StepKeys:
    ref = StepRef(job_id=handle.id, session_id=handle.session_id, step="1")
    return step_keys(stage.client.operations.keys, ref)


def grow(raw: bytes) -> bytes:
    """Add a field that this release does not know."""
    return json.dumps({**json.loads(raw), **LATER}).encode()


def grow_fields(stage: Stage, key: str, *fields: str) -> None:
    for field in fields:
        raw = stage.client.store.client.hget(key, field)
        assert isinstance(raw, bytes), f"{key} has no {field}"
        stage.client.store.client.hset(key, field, grow(raw))


def grow_list(stage: Stage, key: str) -> None:
    client = stage.client.store.client
    for at, raw in enumerate(client.lrange(key, 0, -1)):
        client.lset(key, at, grow(raw))


def park(stage: Stage, session_id: str | None = None) -> Any:
    """Make a job that is parked at a call."""
    handle = desk.enqueue(stage.cast([use(("wipe", {"target": "disk"})), "Done."]), session_id=session_id)
    assert handle.result(PATIENCE_S).status is JobStatus.PARKED
    return handle


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `midwatch` against the fleet."""
    command = [sys.executable, "-m", "midwatch.workers.cli", *arguments]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_a_parked_job_with_later_fields_goes_on(stage: Stage) -> None:
    """The fields are in its hash, spec, question, call, log and trace. All of them are still there at the job's end."""
    handle = park(stage)
    keys = keys_of(stage, handle)
    client = stage.client.store.client
    client.hset(keys.job, "of_a_later_release", "1")
    grow_fields(stage, keys.job, "spec", "waiting")
    grow_fields(stage, keys.steps, "1.0:why", "1.0:call")
    for key in (keys.log, keys.trace):
        grow_list(stage, key)
    assert stage.client.approvals.approve(handle.id)
    assert handle.result(PATIENCE_S).output == "Done."
    assert client.hget(keys.job, "of_a_later_release") == b"1"
    assert [message.model_extra for message in stage.client.sessions.messages(handle.session_id)][:2] == [LATER, LATER]
    assert stage.client.jobs.trace(handle.id)[0].model_extra == LATER


def test_a_letter_with_later_fields_is_replayed(stage: Stage) -> None:
    """The replayed job goes on where it stopped."""
    again = use(("add", {"a": 1, "b": 2}))
    handle = three_steps.enqueue(stage.cast([again, again, again, "Done."]))
    assert handle.result(PATIENCE_S).status is JobStatus.DEAD_LETTERED
    keys = keys_of(stage, handle)
    grow_fields(stage, keys.letters, handle.id)
    grow_fields(stage, keys.job, "failure")
    assert stage.client.dead_letters.show(handle.id).model_extra == LATER
    assert stage.client.dead_letters.replay(handle.id)
    assert handle.result(PATIENCE_S).output == "Done."


def test_a_compaction_keeps_later_fields(stage: Stage, wait_for: Callable[..., Any]) -> None:
    """The fields are in the memory, in archived messages, and in results that are elided or cut."""
    agent = trimming["anthropic"]
    lines = [use(("report", {"size_bytes": 3_000})), use(("report", {"size_bytes": 3_001})), "Done."]
    handle = agent.enqueue(stage.cast(lines))
    assert handle.result(PATIENCE_S).output == "Done."
    keys, session_id = keys_of(stage, handle), handle.session_id
    sessions, client = stage.client.sessions, stage.client.store.client

    def compact() -> None:
        done = sessions.show(session_id).compactions
        assert sessions.compact(session_id)
        wait_for(lambda: sessions.show(session_id).compactions > done, "a worker to compact the session")

    grow_list(stage, keys.log)
    if not sessions.memory(session_id):
        compact()
    memory_key = stage.client.operations.keys.memory(session_id)
    if raw := client.get(memory_key):
        client.set(memory_key, grow(raw), keepttl=True)
    again = agent.enqueue(stage.cast(lines), session_id=session_id)
    assert again.result(PATIENCE_S).output == "Done."
    compact()
    assert any(message.model_extra == LATER for message in sessions.originals(session_id))
    memory = sessions.memory(session_id)
    assert memory is None or raw is None or memory.model_extra == LATER


def test_a_message_with_later_fields_starts_and_runs_a_job(stage: Stage, wait_for: Callable[..., Any]) -> None:
    """The fields are in the argument of `midwatch.start`, and in the arguments of a step."""
    job_id, session_id = "job-of-a-later-release", "session-of-a-later-release"
    queue = f"{stage.client.operations.keys.prefix}.model"
    started = {"job_id": job_id, "session_id": session_id, "agent": "plain", "input": stage.cast(["Hello."])}
    app = make_app(Settings())
    app.send_task("midwatch.start", args=[{**started, **LATER}], queue=queue)
    app.send_task(
        "midwatch.model", kwargs={"job_id": job_id, "session_id": session_id, "step": "1", **LATER}, queue=queue
    )
    app.close()
    jobs = stage.client.jobs
    wait_for(lambda: [one for one in jobs.list(agent="plain") if one.job_id == job_id and one.output], "the job to end")
    assert stage.client.operations.poison() == []


def make_newer(stage: Stage, keys: StepKeys) -> None:
    spec = json.loads(stage.client.store.client.hget(keys.job, "spec"))  # type: ignore[arg-type]
    stage.client.store.client.hset(keys.job, "spec", json.dumps({**spec, "v": 2, "tenant": SECRET}))


def make_wrong_type(stage: Stage, keys: StepKeys) -> None:
    stage.client.store.client.delete(keys.job)
    stage.client.store.client.set(keys.job, SECRET, ex=3_600)


def make_nonsense(stage: Stage, keys: StepKeys) -> None:
    stage.client.store.client.hset(keys.job, mapping={"created_ms": SECRET, "input": json.dumps(SECRET)})


@pytest.mark.parametrize("damage", [make_newer, make_wrong_type, make_nonsense])
def test_one_unreadable_job_delays_no_other(stage: Stage, wait_for: Callable[..., Any], damage: Any) -> None:
    """Other jobs complete.

    The unreadable job is offered 30 times, then it is a letter. No log line or letter quotes its content, and an
    operator can end the job.
    """
    first = park(stage)
    bad = plain.enqueue(stage.cast(["Never said."]), session_id=first.session_id)
    behind = plain.enqueue(stage.cast(["At last."]), session_id=first.session_id)
    keys = keys_of(stage, bad)
    damage(stage, keys)
    assert stage.client.approvals.approve(first.id)
    good = [plain.enqueue(stage.cast(["Hello."])) for _ in range(10)]
    assert {handle.result(PATIENCE_S).output for handle in good} == {"Hello."}
    assert first.result(PATIENCE_S).output == "Done."
    wait_for(lambda: stage.client.store.client.hexists(keys.letters, bad.id), "the last try of the unreadable job")
    letter = stage.client.dead_letters.show(bad.id)

    def log_of_bad() -> list[str]:
        log = stage.fleet.members[0].log_path.read_text()
        return [line for line in log.splitlines() if bad.id in line]

    # A worker writes the last of these lines after the letter.
    wait_for(lambda: sum("step.set_aside" in line for line in log_of_bad()) >= TRIES, "the log of the last try")
    lines, log = log_of_bad(), stage.fleet.members[0].log_path.read_text()
    assert sum("step.set_aside" in line for line in lines) == TRIES
    assert SECRET not in log + letter.model_dump_json()
    assert not any("Traceback" in line for line in lines)

    listed = run_command("jobs", "list", "--limit", "100", "--json")
    assert listed.returncode == 0, listed.stderr
    document = json.loads(listed.stdout)
    assert {handle.id for handle in good} <= {job["job_id"] for job in document["jobs"]}
    assert bad.id in json.dumps(document["unreadable"])
    assert SECRET not in listed.stdout + listed.stderr

    assert stage.client.dead_letters.discard(bad.id)
    assert behind.result(PATIENCE_S).output == "At last."


def test_two_questions_of_one_turn_are_answered_in_any_order(stage: Stage, wait_for: Callable[..., Any]) -> None:
    """A human's text may equal the runtime's own. Each call gets its own decision, and the text is passed on unchanged."""
    calls = (("wipe", {"target": "a"}), ("wipe", {"target": "b"}))
    for order in (("1.0", "1.1"), ("1.1", "1.0")):
        text = stage.cast([use(*calls), "Done."])
        handle = desk.enqueue(text)
        wait_for(lambda: [one.outcome for one in handle.events()].count("park") == 2, "both calls to be parked")  # noqa: B023
        for step in order:
            assert handle.reject("unknown_effect rejected:|{} approved", step)
        assert handle.result(PATIENCE_S).output == "Done."
        assert told(stage.heard(text)[1]) == ["A human rejected this call: unknown_effect rejected:|{} approved"] * 2
        effects = [record.effect for record in handle.events() if record.tool and record.outcome == "continue"]
        assert effects == ["none", "none"]
