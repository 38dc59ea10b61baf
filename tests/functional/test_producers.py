"""Producers with the agent's code, by name alone, or in another language, and what they see of their jobs."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
from celery import Celery
from kombu import Connection, Queue

from midwatch.orchestration.errors import ConfigError, JobTimeout, NotFound, Refused, StoreUnavailable
from midwatch.schemas.contract import MAX_INPUT_BYTES
from midwatch.schemas.job import JobStatus
from tests.functional.fleet_agents import desk, plain, scribe, three_steps
from tests.functional.fleet_marks import marks
from tests.functional.fleet_stage import fleet_on_stage, use
from tests.patience import PATIENCE_S

ONE_SLOT = (("model,tools", "threads", 1),)

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def stage(server, lend_prefix, tmp_path_factory):
    """One worker with one slot, so the order of jobs is visible."""
    with (
        lend_prefix() as prefix,
        fleet_on_stage(server.url, prefix, tmp_path_factory.mktemp("jobs"), ONE_SLOT) as stage,
    ):
        yield stage


@pytest.fixture(scope="module")
def foreign(server, stage):
    """A Celery app that knows only the broker's address."""
    app = Celery("somebody-else", broker=server.url, set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def occupied(stage, wait_for):
    """Occupy the only slot with a job, until the job is cancelled."""
    handle = scribe.enqueue(stage.cast([use(("long_haul", {}))]))
    wait_for(lambda: marks(f"haul-{handle.id}"), "the tool to begin")
    yield handle
    handle.cancel()


# With the agent's code, and without it


def test_run_waits_and_returns_the_result(stage):
    """`agent.run` returns output, steps and usage. A model without a known price has no cost."""
    text = stage.cast([use(("add", {"a": 1, "b": 2})), "Three."])
    result = three_steps.run(text, session_id="run-1", timeout_s=PATIENCE_S)
    assert (result.status, result.output, result.steps) == (JobStatus.COMPLETED, "Three.", 2)
    assert (result.session_id, result.failure) == ("run-1", None)
    assert result.usage.input_tokens > 0
    assert result.usage.output_tokens > 0
    assert result.usage.reported
    assert result.cost_usd is None or result.cost_usd > 0


def test_a_producer_without_the_code_enqueues_by_name(stage):
    """The worker applies the agent's own limits and version: three steps, which the producer did not know."""
    client = stage.connect()
    text = stage.cast([use(("add", {"a": n, "b": n})) for n in range(4)])
    handle = client.enqueue("three-steps", text, session_id="by-name", tenant="acme")
    result = handle.result(PATIENCE_S)
    assert (result.status, result.steps) == (JobStatus.DEAD_LETTERED, 3)
    assert result.failure.detail.startswith("step_limit: 3 ")
    job = client.jobs.show(handle.id)
    assert (job.max_steps, job.agent_version, job.tenant) == (3, three_steps.version, "acme")
    assert client.jobs.get(handle.id).result(1) == result


def test_connect_takes_an_address(stage, server):
    """A producer may pass the server's address instead of setting it in its environment."""
    handle = stage.connect(redis_url=server.url).enqueue("plain", "hello")
    assert handle.result(PATIENCE_S).output == "You said: hello"


def test_a_job_of_an_unknown_agent_waits_and_says_why(stage, wait_for):
    """A rolling deployment may bring the agent later. The job waits, and the listing has the reason and the nearest name."""
    handle = stage.client.enqueue("plian", "hello")
    job = wait_for(lambda: (job := stage.job(handle)).waiting and job, "the job to be put back")
    assert "no agent 'plian' is loaded here; did you mean 'plain'?" in job.waiting.reason
    assert "MIDWATCH_AGENTS" in job.waiting.reason
    assert handle.cancel()
    assert handle.result(PATIENCE_S).status is JobStatus.CANCELLED


def test_a_job_may_be_enqueued_into_the_lineage_of_another(stage):
    """With `parent=`, the root, the depth and the tenant are recorded. The parent does not wait for the job."""
    root = desk.enqueue(stage.cast([use(("wipe", {"target": "disk"})), "Done."]), tenant="acme")
    assert root.result(PATIENCE_S).status is JobStatus.PARKED
    caused = plain.enqueue("caused by it", parent=root)
    assert caused.result(PATIENCE_S).status is JobStatus.COMPLETED
    job = stage.job(caused)
    assert (job.root_id, job.depth, job.tenant) == (root.id, 1, "acme")
    assert root.approve()
    assert root.result(PATIENCE_S).output == "Done."
    with pytest.raises(Refused, match="It can have no more children"):
        plain.enqueue("too late", parent=root)


# In another language


def envelope(text, **more):
    """Return the one argument of `midwatch.start`."""
    return {"v": 1, "job_id": more.pop("job_id"), "agent": "plain", "session_id": "foreign", "input": text, **more}


def send(app, stage, one):
    """Send a task as any Celery producer does."""
    app.send_task("midwatch.start", args=[one], queue=f"{stage.client.operations.keys.prefix}.model")


def started(stage, job_id, wait_for):
    """Wait until a worker has made a job of the message, and return its handle."""

    def look():
        try:
            return stage.client.jobs.get(job_id)
        except NotFound:
            return None

    return wait_for(look, f"job {job_id}")


def test_a_foreign_celery_producer_starts_a_job(stage, foreign, wait_for):
    """The producer sends a plain Celery message with our envelope. Every field arrives, and a second delivery changes nothing."""
    text = stage.cast(["Received."])
    one = envelope(text, job_id="job-foreign-1", tenant="acme", priority="low", traceparent=TRACEPARENT)
    send(foreign, stage, one)
    send(foreign, stage, one)
    handle = started(stage, "job-foreign-1", wait_for)
    assert handle.result(PATIENCE_S).output == "Received."
    job = stage.job(handle)
    assert (job.agent, job.session_id, job.tenant) == ("plain", "foreign", "acme")
    assert (job.priority, job.traceparent, job.agent_version) == ("low", TRACEPARENT, plain.version)
    assert plain.run("after it", session_id="foreign", timeout_s=PATIENCE_S).output == "You said: after it"
    assert len(stage.heard(text)) == 1


def test_a_producer_without_celery_starts_a_job(stage, server, wait_for):
    """The producer sends a bare kombu message, as a library in another language does."""
    text = stage.cast(["Received, too."])
    name = f"{stage.client.operations.keys.prefix}.model"
    body = [[envelope(text, job_id="job-foreign-2")], {}, {}]
    with Connection(server.url) as connection:
        connection.Producer(serializer="json").publish(
            body,
            routing_key=name,
            declare=[Queue(name, routing_key=name)],
            headers={"task": "midwatch.start", "id": "t2"},
        )
    assert started(stage, "job-foreign-2", wait_for).result(PATIENCE_S).output == "Received, too."


def test_the_documented_redis_command_starts_a_job(stage, wait_for):
    """docs/producers.md has one LPUSH for producers in another language. Only agent, queue and input differ here."""
    page = (Path(__file__).parents[2] / "docs" / "producers.md").read_text("utf-8")
    (queue, message) = re.search(r"^LPUSH (\S+) (.*)$", page, re.MULTILINE).groups()
    prefix = stage.client.operations.keys.prefix
    text = stage.cast(["From Go."])
    message = message.replace("tide-clerk", "plain").replace("When is high water?", text)
    for _ in range(2):  # a repetition is the same job
        stage.client.store.client.lpush(queue.replace("mw.", f"{prefix}."), message)
    assert started(stage, "from-go-1", wait_for).result(PATIENCE_S).output == "From Go."
    assert len(stage.heard(text)) == 1


def test_an_idempotency_key_works_across_all_producers(stage, foreign, wait_for):
    """The same key is the same job, whether it is enqueued with code, by name, or by a message with another id."""
    text = stage.cast(["Once."])
    first = stage.client.enqueue("plain", text, idempotency_key="foreign-key")
    assert first.result(PATIENCE_S).output == "Once."
    send(foreign, stage, envelope(text, job_id="job-foreign-3", idempotency_key="foreign-key"))
    send(foreign, stage, envelope("the last one", job_id="job-foreign-4"))
    started(stage, "job-foreign-4", wait_for).result(PATIENCE_S)
    with pytest.raises(NotFound):
        stage.client.jobs.show("job-foreign-3")
    assert len(stage.heard(text)) == 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"agent": "no such name!"}, "agent"),
        ({"session_id": "{a}"}, "session_id"),
        ({"input": ""}, "input"),
        ({"input": "   "}, "input"),
        ({"v": 2}, "v: "),
        ({"priority": "urgent"}, "priority"),
    ],
)
def test_a_wrong_envelope_is_kept_as_poison_with_its_reason(stage, foreign, wait_for, spoil, reason):
    """No producer waits for an answer, so the message is kept for operators, and the worker goes on."""
    before = len(stage.client.operations.poison())
    send(foreign, stage, envelope("hello", job_id="job-spoiled") | spoil)
    records = wait_for(
        lambda: len(found := stage.client.operations.poison()) > before and found, "the message to be kept"
    )
    assert records[0].reason.startswith("midwatch.start: ")
    assert reason in records[0].reason
    assert json.loads(records[0].body)["job_id"] == "job-spoiled"


def test_a_field_of_a_later_release_is_ignored(stage, foreign, wait_for):
    """A producer may be newer than the worker. The job runs, and nothing is kept as poison."""
    before = len(stage.client.operations.poison())
    send(foreign, stage, envelope("hello", job_id="job-later") | {"of_a_later_release": {"a": 1}})
    assert started(stage, "job-later", wait_for).result(PATIENCE_S).status is JobStatus.COMPLETED
    assert len(stage.client.operations.poison()) == before


# Priority


def test_the_more_urgent_job_is_served_first(stage, occupied):
    """With one slot, high runs first, then normal, then low. The order in which the jobs came does not matter."""
    jobs = {(priority, n): plain.enqueue(f"{priority} {n}", priority=priority) for n in (1, 2) for priority in
            ("low", "normal", "high")}  # fmt: skip
    occupied.cancel()
    assert {handle.result(PATIENCE_S).status for handle in jobs.values()} == {JobStatus.COMPLETED}
    order = sorted(jobs, key=lambda key: stage.job(jobs[key]).started_ms)
    assert [priority for priority, _ in order] == ["high", "high", "normal", "normal", "low", "low"]
    assert stage.job(jobs["low", 1]).priority == "low"


# What a producer sees


def test_status_and_timeout_while_a_job_waits(stage, occupied):
    """A timeout of `result()` is not a failure of the job. The error has the job's state."""
    handle = plain.enqueue("patience")
    assert handle.status() is JobStatus.QUEUED
    with pytest.raises(JobTimeout, match=rf"job {handle.id} is queued after 0.2 s(: waits for .*)?; it goes on, so"):
        handle.result(0.2)
    with pytest.raises(TimeoutError):
        plain.run("patience, too", timeout_s=0.05)
    occupied.cancel()
    assert handle.result(PATIENCE_S).output == "You said: patience"


def test_workers_report_themselves_and_their_load(stage, occupied, wait_for):
    """A real worker is listed with its queues, slots and agents, and with the step that it runs."""
    (worker,) = wait_for(
        lambda: [one for one in stage.client.workers.list() if one.busy], "a report with the running step"
    )
    assert {"model", "tools"} <= set(worker.queues)
    assert (worker.slots, worker.busy, worker.pool) == (1, 1, "thread")
    assert worker.agents["plain"] == plain.version
    assert worker.started_ms <= worker.seen_ms
    handle = plain.enqueue("patience")
    wait_for(
        lambda: "1 of 1 slots are busy" in stage.client.jobs.explain([handle.job()]).get(handle.id, ""),
        "the reason of the waiting job",
    )
    handle.cancel()


def test_a_queued_job_that_is_cancelled_never_calls_the_model(stage, occupied):
    """A queued job ends at once, before its first step."""
    text = stage.cast(["never"])
    handle = plain.enqueue(text)
    assert handle.cancel()
    assert handle.result(1).status is JobStatus.CANCELLED
    assert (handle.result(1).steps, handle.result(1).output_or_none) == (0, None)
    occupied.cancel()
    assert plain.run("after it", timeout_s=PATIENCE_S).output == "You said: after it"
    assert stage.heard(text) == []


def test_events_follow_a_job_to_its_end(stage, occupied):
    """`events(follow=True)` yields each step when it is committed, until the job ends. Without it, the steps so far."""
    text = stage.cast([use(("add", {"a": 1, "b": 1}), ("add", {"a": 2, "b": 2})), "Done."])
    handle = three_steps.enqueue(text)
    assert list(handle.events()) == []
    seen = []
    follower = threading.Thread(target=lambda: seen.extend(handle.events(follow=True)), daemon=True)
    follower.start()
    occupied.cancel()
    assert handle.result(PATIENCE_S).output == "Done."
    follower.join(PATIENCE_S)
    assert not follower.is_alive()
    assert seen == list(handle.events())
    assert [(record.step, record.outcome) for record in seen][0::3] == [("1", "continue"), ("2", "complete")]
    assert sorted(record.step for record in seen) == ["1", "1.0", "1.1", "2"]
    assert all(record.ended_ms >= record.started_ms for record in seen)


def test_jobs_are_listed_newest_first_and_filtered(stage):
    """The newest job is first. Jobs can be filtered by status and by agent."""
    first = plain.enqueue("first")
    assert first.result(PATIENCE_S).status is JobStatus.COMPLETED
    second = plain.enqueue("second")
    assert second.result(PATIENCE_S).status is JobStatus.COMPLETED
    assert [job.job_id for job in stage.client.jobs.list(limit=2)] == [second.id, first.id]
    assert {job.agent for job in stage.client.jobs.list(agent="three-steps")} == {"three-steps"}
    assert {job.status for job in stage.client.jobs.list(status="dead_lettered")} == {JobStatus.DEAD_LETTERED}


def test_an_unknown_id_raises_not_found(stage):
    """The error has the id and says where to look."""
    with pytest.raises(NotFound, match=r"no job 'job-nowhere'.*midwatch jobs list"):
        stage.client.jobs.get("job-nowhere")
    with pytest.raises(NotFound, match="no session 'nowhere'"):
        stage.client.sessions.messages("nowhere")
    done = plain.enqueue("fine")
    done.result(PATIENCE_S)
    with pytest.raises(NotFound, match=rf"job '{done.id}' has no dead letter: it is completed"):
        stage.client.dead_letters.show(done.id)


# Invalid arguments


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "input: expected text"),
        ("  \n", "input: expected text"),
        (None, "input: expected text, got NoneType"),
        (7, "input: expected text, got int"),
        ("x" * (MAX_INPUT_BYTES + 1), r"input: 1,000,001 bytes, at most 1,000,000; store the document"),
        ("half \ud800 a pair", "there is a lone surrogate at position 5"),
    ],
    ids=["empty", "blank", "none", "number", "too long", "lone surrogate"],
)
def test_an_input_that_is_not_text_is_refused(stage, given, said):
    """The error is raised at once, with a message. No job is stored."""
    before = stage.client.operations.counters()["jobs.enqueued"]
    with pytest.raises(ConfigError, match=said) as caught:
        plain.enqueue(given)
    assert len(str(caught.value)) < 300
    assert stage.client.operations.counters()["jobs.enqueued"] == before


@pytest.mark.parametrize("what", ["session_id", "idempotency_key", "tenant"])
@pytest.mark.parametrize("bad", ["", "a b", "{slot}", "a|b", "x" * 129, "é", ".hidden", "new\nline", 7])
def test_an_id_that_could_break_a_key_is_refused(stage, what, bad):
    """Ids become parts of Redis keys. The error names the argument and the rule."""
    with pytest.raises(ConfigError, match=f"{what}=.*expected 1 to 128 letters, digits or") as caught:
        plain.enqueue("hello", **{what: bad})
    assert len(str(caught.value)) < 300


def test_a_priority_and_an_agent_that_do_not_exist_are_refused(stage):
    """The error lists the possible values."""
    with pytest.raises(ConfigError, match="priority='urgent': expected one of high, normal, low"):
        plain.enqueue("hello", priority="urgent")
    with pytest.raises(ConfigError, match="agent name 'no such name!': expected a letter or _"):
        stage.client.enqueue("no such name!", "hello")


def test_a_server_that_is_down_raises_within_seconds(stage):
    """StoreUnavailable says that no job was stored, and which setting to check."""
    client = stage.connect(redis_url="redis://127.0.0.1:1/0")
    with pytest.raises(StoreUnavailable, match=r"nothing was recorded.*MIDWATCH_REDIS_URL"):
        client.enqueue("plain", "hello")


def test_long_and_unusual_texts_arrive_unchanged(stage):
    """The input is a long text, or has every character that JSON, Lua or a shell might handle wrongly.

    Only NUL is replaced for the provider, because several servers refuse it. The session keeps it.
    """
    odd = 'quote " backslash \\ line \u2028 emoji 🙂 {"json": [1]} %s ${x} é'
    text = stage.cast(["Read."], odd)
    assert plain.run(text, timeout_s=PATIENCE_S).output == "Read."
    stage.cast(["Read it without NUL."], "null \ufffd")
    result = plain.run("null \x00", timeout_s=PATIENCE_S)
    assert result.output == "Read it without NUL."
    assert stage.client.sessions.messages(result.session_id)[0].text == "null \x00"
    long = "y" * 200_000
    assert plain.run(stage.cast(["Read that, too."], long), timeout_s=PATIENCE_S).output == "Read that, too."


def test_a_start_may_have_a_countdown_and_an_expiry(stage, foreign, wait_for):
    """The job begins after its countdown, even if no worker ran meanwhile. An expired start is no job. Neither is poison."""
    keys = stage.client.operations.keys
    queue = Queue(keys.queue("model"), routing_key=keys.queue("model"))
    text = stage.cast(["Later."])

    def start(job_id: str, **options: object) -> None:
        envelope = {"v": 1, "job_id": job_id, "agent": "plain", "session_id": f"of-{job_id}", "input": text}
        foreign.send_task("midwatch.start", args=[envelope], queue=queue, ignore_result=True, **options)

    start("job-with-expiry", expires=-1)
    start("job-with-countdown", countdown=3_600, link=foreign.signature("shop.pay"))
    wait_for(lambda: stage.client.store.client.zcard(keys.later()) == 1, "the message to be kept")
    with pytest.raises(NotFound):
        stage.client.jobs.show("job-with-countdown")
    [kept] = stage.client.store.client.zrange(keys.later(), 0, -1)
    stage.client.store.client.zadd(keys.later(), {kept: 1})  # its time has come
    wait_for(lambda: _exists(stage, "job-with-countdown"), "the job after its countdown")
    assert stage.client.jobs.get("job-with-countdown").result(PATIENCE_S).output == "Later."
    assert stage.client.store.client.zcard(keys.later()) == 0
    with pytest.raises(NotFound):
        stage.client.jobs.show("job-with-expiry")
    assert not [each for each in stage.client.operations.poison() if "expire" in each.reason or "eta" in each.reason]


def _exists(stage, job_id: str) -> bool:
    try:
        return bool(stage.client.jobs.show(job_id))
    except NotFound:
        return False
