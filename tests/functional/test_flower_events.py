"""Job rows in Flower: what a job's steps make of its row, in every pool, and what they cost when the broker is slow."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from celery.events import EventReceiver
from celery.events.state import State, Task

from midwatch.schemas.decision import ParkReason
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.step import Complete, Continue, DeadLetter, Defer, Park
from midwatch.workers.celery_app.app import make_app
from midwatch.workers.celery_app.flower_events import CAPACITY_EVENTS, JobEvents
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.settings import Settings
from tests.browser.crew import model_server
from tests.browser.stage import Stage
from tests.patience import PATIENCE_S

THROTTLED = Failure(kind=FailureKind.RATE_LIMITED, detail="429")
LATER = Defer(after_ms=0, reason="rate_limited: 429", counts_as_attempt=True, failure=THROTTLED)
NOT_NOW = Defer(after_ms=0, reason="gate closed", counts_as_attempt=False)

ROOMY = '{"anthropic:claude-sonnet-4-6": {"rpm": 6000}}'
"""A limit that the fleet is told. From the 429 it would guess one, as low as six calls a minute where little was sent before."""
CREW = {"MIDWATCH_AGENTS": "tests.browser.crew", "MIDWATCH_LIMITS": ROOMY}


class Ear:
    """What a monitor hears: every event, and Celery's own picture of them."""

    def __init__(self, url: str) -> None:
        app = make_app(Settings(redis_url=url))
        self._receiver = EventReceiver(app.connection_for_read(), handlers={"*": self._take}, app=app)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._heard: list[dict[str, object]] = []
        self._state = State()

    def __enter__(self) -> Ear:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join(PATIENCE_S)
        self._receiver.connection.release()

    def _listen(self) -> None:
        for _ in self._receiver.consume(limit=None, safety_interval=0.1, wakeup=False):
            pass

    def _take(self, event: dict[str, object]) -> None:
        self._heard.append(dict(event))
        self._state.event(event)

    def told(self, job_id: str) -> list[str]:
        """The types of all events about a job, in the order in which they happened."""
        mine = [event for event in self._heard if event.get("uuid") == job_id]
        return [str(event["type"]) for event in sorted(mine, key=lambda event: float(str(event["timestamp"])))]

    def row(self, job_id: str) -> Task:
        """The job's row."""
        task: Task = self._state.tasks[job_id]
        return task


@pytest.fixture
def ear(server: EmbeddedServer, redis, wait_for) -> Iterator[Ear]:
    """Listening when it is handed out."""
    before = redis.pubsub_numpat() + len(redis.pubsub_channels())
    with Ear(server.url) as listening:
        wait_for(lambda: redis.pubsub_numpat() + len(redis.pubsub_channels()) > before, "the ear to listen")
        yield listening


@pytest.fixture
def stage(server: EmbeddedServer, prefix: str) -> Iterator[Stage]:
    """Jobs to move by hand."""
    with Stage(server.url, prefix) as made:
        yield made


@pytest.fixture
def events(server: EmbeddedServer, prefix: str) -> JobEvents:
    """The rows' sender in this process."""
    return JobEvents(make_app(Settings(redis_url=server.url, prefix=prefix)))


def test_a_row_follows_its_job_and_tells_ids_only(ear: Ear, stage: Stage, events: JobEvents, wait_for):
    """Each change of state is one event, steps that change nothing are none; the row ends as SUCCESS with a runtime."""
    claim = stage.begin(text="a secret question")
    job_id = claim.ref.job_id
    events.observe(claim, stage.trace(claim, "defer", failure=THROTTLED), LATER)
    stage.put_back(claim, THROTTLED, after_ms=0)
    claim = stage.claim(claim.ref)
    [call] = stage.turn(claim, "a secret reason", "look")
    events.observe(claim, stage.trace(claim, "continue"), Continue())
    events.observe(call, stage.trace(call, "continue"), Continue())
    second = stage.next_turn(call)
    events.observe(second, stage.trace(second, "continue"), Continue())
    events.observe(second, stage.trace(second, "complete"), Complete(output="a secret answer"))
    wait_for(lambda: "task-succeeded" in ear.told(job_id), "the last event")
    assert ear.told(job_id) == ["task-deferred", "task-running", "task-succeeded"]
    row = ear.row(job_id)
    assert (row.state, row.name, row.args, row.retries) == ("SUCCESS", "job:desk", "()", 1)
    assert row.received == pytest.approx(claim.job.created_ms / 1000)
    assert row.runtime > 0
    assert job_id in row.kwargs
    assert "secret" not in str(ear._heard)


@pytest.mark.parametrize(
    ("word", "outcome", "state"),
    [
        ("park", Park(question="May it?", reason=ParkReason.TOOL_APPROVAL), "PARKED"),
        ("dead_letter", DeadLetter(failure=THROTTLED), "DEAD-LETTERED"),
        ("cancelled", DeadLetter(failure=THROTTLED), "CANCELLED"),
        ("timed_out", DeadLetter(failure=THROTTLED), "TIMED-OUT"),
    ],
)
def test_every_way_to_stop_has_its_state(ear: Ear, stage: Stage, events: JobEvents, wait_for, word, outcome, state):
    """A forced ending is told by its own word, not as a dead letter."""
    claim = stage.begin()
    events.observe(claim, stage.trace(claim, "continue"), Continue())
    events.observe(claim, stage.trace(claim, word, failure=THROTTLED), outcome)
    wait_for(lambda: len(ear.told(claim.ref.job_id)) == 2, "both events")
    assert ear.row(claim.ref.job_id).state == state
    assert ear.row(claim.ref.job_id).exception == "rate_limited"


def test_a_row_goes_on_after_a_replay_and_after_an_uncounted_wait(ear: Ear, stage: Stage, events: JobEvents, wait_for):
    """DEAD-LETTERED and DEFERRED are not the row's end."""
    claim = stage.begin()
    [call] = stage.turn(claim, "", "look")
    events.observe(claim, stage.trace(claim, "continue"), Continue())
    events.observe(call, stage.trace(call, "dead_letter", failure=THROTTLED), DeadLetter(failure=THROTTLED))
    events.observe(call, stage.trace(call, "continue"), Continue())
    events.observe(call, stage.trace(call, "defer"), NOT_NOW)
    events.observe(call, stage.trace(call, "continue"), Continue())
    wait_for(lambda: len(ear.told(claim.ref.job_id)) == 5, "five events")
    assert ear.told(claim.ref.job_id)[1:] == ["task-dead-lettered", "task-running", "task-deferred", "task-running"]
    assert ear.row(claim.ref.job_id).state == "RUNNING"


def test_a_forked_child_has_a_sender_of_its_own(ear: Ear, stage: Stage, events: JobEvents, wait_for):
    """A pool child that inherits a sender makes a new thread and a new connection."""
    claims = [stage.begin(), stage.begin()]
    events.observe(claims[0], stage.trace(claims[0], "continue"), Continue())
    assert events.flush(10)
    child = os.fork()
    if child == 0:
        events.observe(claims[1], stage.trace(claims[1], "continue"), Continue())
        os._exit(0 if events.flush(10) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for claim in claims:
        wait_for(lambda claim=claim: ear.told(claim.ref.job_id) == ["task-running"], "the row")


def test_a_frozen_broker_costs_a_step_nothing(stage: Stage):
    """What can't be sent waits in a bounded queue, then is dropped: a step that waited for the broker would wait for ever."""
    claims = [stage.begin() for _ in range(CAPACITY_EVENTS // 10)]
    with EmbeddedServer(append_only=None) as own:
        events = JobEvents(make_app(Settings(redis_url=own.url)))
        events.observe(claims[0], stage.trace(claims[0], "continue"), Continue())
        assert events.flush(10)
        own.freeze()
        for _ in range(20):
            for claim in claims:
                events.observe(claim, stage.trace(claim, "dead_letter"), DeadLetter(failure=THROTTLED))
        assert events.dropped >= CAPACITY_EVENTS // 2
        own.thaw()


@pytest.mark.parametrize("pool", ["threads", "solo", "prefork"])
def test_rows_come_from_every_pool(ear: Ear, server: EmbeddedServer, prefix: str, tmp_path, wait_for, pool: str):
    """A job that is throttled once and ends well, one that dies; each row names the worker that moved it last.

    The workers are told to end as soon as the jobs have: what they had to say is said all the same.
    """
    with model_server() as model, Stage(server.url, prefix) as stage:
        env = {**model.environment(), **CREW, "PYTHONPATH": os.getcwd()}
        with Fleet(env, tmp_path) as fleet:
            member = fleet.start("crew", worker_argv("model,tools", pool, 2, "crew"))
            wait_ready(member, "ready", PATIENCE_S)
            handles = [stage.client.enqueue("sailor", text) for text in ("look", "fire")]
            wait_for(lambda: {h.status() for h in handles} == {"completed", "dead_lettered"}, "both jobs to end")
    jobs = [handle.id for handle in handles]
    wait_for(lambda: "task-succeeded" in ear.told(jobs[0]), "the event of a job that ended well")
    wait_for(lambda: "task-dead-lettered" in ear.told(jobs[1]), "the event of a job that died")
    for job, end in zip(jobs, ("task-succeeded", "task-dead-lettered"), strict=True):
        first, *between, last = ear.told(job)
        assert (first, last) == ("task-deferred", end)
        assert set(between) <= {"task-deferred", "task-running"}  # it may have waited for the coordinator, too
        assert "task-running" in between
    assert ear.row(jobs[0]).worker.hostname.startswith("crew@")


def test_without_events_nothing_is_sent_at_all(ear: Ear, server: EmbeddedServer, prefix: str, tmp_path, wait_for):
    """`MIDWATCH_EVENTS=false`: the job runs, and Flower hears nothing of it."""
    with model_server() as model, Stage(server.url, prefix) as stage:
        env = {**model.environment(), **CREW, "PYTHONPATH": os.getcwd()}
        with Fleet({**env, "MIDWATCH_EVENTS": "false"}, tmp_path) as fleet:
            member = fleet.start("crew", worker_argv("model,tools", "threads", 2, "crew"))
            wait_ready(member, "ready", PATIENCE_S)
            handle = stage.client.enqueue("sailor", "look")
            wait_for(lambda: handle.status() == "completed", "the job to end")
    assert ear.told(handle.id) == []
