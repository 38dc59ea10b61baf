"""Job rows in Flower: how steps change a row, in every pool, and what the events cost when the broker is slow."""

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
from midwatch.workers.celery_app.fleet_app import make_app
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
"""The limit of the test's model. Without it the fleet would guess one from a 429, maybe only six calls a minute."""
CREW = {"MIDWATCH_AGENTS": "tests.browser.crew", "MIDWATCH_LIMITS": ROOMY}


class EventListener:
    """Receives every event as a monitor does, and keeps Celery's own state of them."""

    def __init__(self, url: str) -> None:
        app = make_app(Settings(redis_url=url))
        self._receiver = EventReceiver(app.connection_for_read(), handlers={"*": self._take}, app=app)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._heard: list[dict[str, object]] = []
        self._state = State()

    def __enter__(self) -> EventListener:
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

    def event_types(self, job_id: str) -> list[str]:
        """Return the types of all events about a job, in the order in which they happened."""
        mine = [event for event in self._heard if event.get("uuid") == job_id]
        return [str(event["type"]) for event in sorted(mine, key=lambda event: float(str(event["timestamp"])))]

    def failed_steps(self, job_id: str) -> list[str]:
        """Return the exceptions of the job's steps whose Celery task failed. This is what Celery's own tools count."""
        mine = [event for event in self._heard if str(event.get("uuid")).startswith(f"{job_id}.")]
        return [str(event["exception"]) for event in mine if event["type"] == "task-failed"]

    def row(self, job_id: str) -> Task:
        """Return the job's row."""
        task: Task = self._state.tasks[job_id]
        return task


@pytest.fixture
def listener(server: EmbeddedServer, redis, wait_for) -> Iterator[EventListener]:
    """A listener that is already connected."""
    before = redis.pubsub_numpat() + len(redis.pubsub_channels())
    with EventListener(server.url) as listening:
        wait_for(lambda: redis.pubsub_numpat() + len(redis.pubsub_channels()) > before, "the listener to connect")
        yield listening


@pytest.fixture
def stage(server: EmbeddedServer, prefix: str) -> Iterator[Stage]:
    """A stage with jobs that the test moves step by step."""
    with Stage(server.url, prefix) as made:
        yield made


@pytest.fixture
def events(server: EmbeddedServer, prefix: str) -> JobEvents:
    """The sender of row events in this process."""
    return JobEvents(make_app(Settings(redis_url=server.url, prefix=prefix)))


def test_a_row_follows_its_job_with_ids_only(listener: EventListener, stage: Stage, events: JobEvents, wait_for):
    """Each change of state is one event, and a step that changes nothing sends none. The row ends with SUCCESS and a runtime."""
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
    wait_for(lambda: "task-succeeded" in listener.event_types(job_id), "the last event")
    assert listener.event_types(job_id) == ["task-deferred", "task-running", "task-succeeded"]
    row = listener.row(job_id)
    assert (row.state, row.name, row.args, row.retries) == ("SUCCESS", "job:desk", "()", 1)
    assert row.received == pytest.approx(claim.job.created_ms / 1000)
    assert row.runtime > 0
    assert job_id in row.kwargs
    assert "secret" not in str(listener._heard)


@pytest.mark.parametrize(
    ("word", "outcome", "state"),
    [
        ("park", Park(question="May it?", reason=ParkReason.TOOL_APPROVAL), "PARKED"),
        ("dead_letter", DeadLetter(failure=THROTTLED), "DEAD-LETTERED"),
        ("cancelled", DeadLetter(failure=THROTTLED), "CANCELLED"),
        ("timed_out", DeadLetter(failure=THROTTLED), "TIMED-OUT"),
    ],
)
def test_every_way_to_stop_has_its_state(
    listener: EventListener, stage: Stage, events: JobEvents, wait_for, word, outcome, state
):
    """A forced ending has its own state, and is not shown as a dead letter."""
    claim = stage.begin()
    events.observe(claim, stage.trace(claim, "continue"), Continue())
    events.observe(claim, stage.trace(claim, word, failure=THROTTLED), outcome)
    wait_for(lambda: len(listener.event_types(claim.ref.job_id)) == 2, "both events")
    assert listener.row(claim.ref.job_id).state == state
    assert listener.row(claim.ref.job_id).exception == "rate_limited"


def test_a_row_goes_on_after_a_replay_or_a_deferral(listener: EventListener, stage: Stage, events: JobEvents, wait_for):
    """DEAD-LETTERED and DEFERRED are not the row's last state."""
    claim = stage.begin()
    [call] = stage.turn(claim, "", "look")
    events.observe(claim, stage.trace(claim, "continue"), Continue())
    events.observe(call, stage.trace(call, "dead_letter", failure=THROTTLED), DeadLetter(failure=THROTTLED))
    events.observe(call, stage.trace(call, "continue"), Continue())
    events.observe(call, stage.trace(call, "defer"), NOT_NOW)
    events.observe(call, stage.trace(call, "continue"), Continue())
    wait_for(lambda: len(listener.event_types(claim.ref.job_id)) == 5, "five events")
    assert listener.event_types(claim.ref.job_id)[1:] == [
        "task-dead-lettered",
        "task-running",
        "task-deferred",
        "task-running",
    ]
    assert listener.row(claim.ref.job_id).state == "RUNNING"


def test_a_forked_child_makes_its_own_sender(listener: EventListener, stage: Stage, events: JobEvents, wait_for):
    """A pool child that inherits a sender starts a new thread and a new connection."""
    claims = [stage.begin(), stage.begin()]
    events.observe(claims[0], stage.trace(claims[0], "continue"), Continue())
    assert events.flush(10)
    child = os.fork()
    if child == 0:
        events.observe(claims[1], stage.trace(claims[1], "continue"), Continue())
        os._exit(0 if events.flush(10) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for claim in claims:
        wait_for(lambda claim=claim: listener.event_types(claim.ref.job_id) == ["task-running"], "the row")


def test_a_frozen_broker_does_not_delay_a_step(stage: Stage):
    """Unsent events wait in a bounded queue and are then dropped. A step that waited for the broker might wait forever."""
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
        assert events.flush(PATIENCE_S), "what was queued is sent"


@pytest.mark.parametrize("pool", ["threads", "solo", "prefork"])
def test_rows_come_from_every_pool(
    listener: EventListener, server: EmbeddedServer, prefix: str, tmp_path, wait_for, pool: str
):
    """One job is throttled once and completes, one becomes a dead letter.

    Each row names the last worker. Workers that are stopped right after the jobs still send their last events.
    """
    with model_server() as model, Stage(server.url, prefix) as stage:
        env = {**model.environment(), **CREW, "PYTHONPATH": os.getcwd()}
        with Fleet(env, tmp_path) as fleet:
            member = fleet.start("crew", worker_argv("model,tools", pool, 2, "crew"))
            wait_ready(member, "ready", PATIENCE_S)
            handles = [stage.client.enqueue("sailor", text) for text in ("look", "fire")]
            wait_for(lambda: {h.status() for h in handles} == {"completed", "dead_lettered"}, "both jobs to end")
    jobs = [handle.id for handle in handles]
    wait_for(lambda: "task-succeeded" in listener.event_types(jobs[0]), "the event of a completed job")
    wait_for(lambda: "task-dead-lettered" in listener.event_types(jobs[1]), "the event of a dead letter")
    wait_for(lambda: listener.failed_steps(jobs[1]), "the failed task of the dead letter's step")
    assert [name.partition("(")[0] for name in listener.failed_steps(jobs[1])] == ["DeadLettered"]
    assert listener.failed_steps(jobs[0]) == []
    for job, end in zip(jobs, ("task-succeeded", "task-dead-lettered"), strict=True):
        first, *between, last = listener.event_types(job)
        assert (first, last) == ("task-deferred", end)
        assert set(between) <= {"task-deferred", "task-running"}  # it may also have waited for the coordinator
        assert "task-running" in between
    assert listener.row(jobs[0]).worker.hostname.startswith("crew@")


def test_no_events_are_sent_if_they_are_switched_off(
    listener: EventListener, server: EmbeddedServer, prefix: str, tmp_path, wait_for
):
    """With `MIDWATCH_EVENTS=false` the job runs, and Flower gets no event about it."""
    with model_server() as model, Stage(server.url, prefix) as stage:
        env = {**model.environment(), **CREW, "PYTHONPATH": os.getcwd()}
        with Fleet({**env, "MIDWATCH_EVENTS": "false"}, tmp_path) as fleet:
            member = fleet.start("crew", worker_argv("model,tools", "threads", 2, "crew"))
            wait_ready(member, "ready", PATIENCE_S)
            handle = stage.client.enqueue("sailor", "look")
            wait_for(lambda: handle.status() == "completed", "the job to end")
    assert listener.event_types(handle.id) == []
