"""What Flower keeps of Celery's events: ids and numbers. Job rows are not counted as tasks."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator

import pytest

from midwatch.schemas.step import Complete, Continue
from midwatch.workers.celery_app.fleet_app import make_app
from midwatch.workers.celery_app.flower_events import JobEvents
from midwatch.workers.flower.event_filter import without_content
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.settings import Settings
from tests.browser.stage import Site, Stage, flower

LOGIN = {"Authorization": "Basic " + base64.b64encode(b"mate:secret").decode()}


@pytest.fixture
def stage(server: EmbeddedServer, prefix: str) -> Iterator[Stage]:
    """A stage with jobs that the test moves step by step."""
    with Stage(server.url, prefix) as made:
        yield made


@pytest.fixture
def site(server: EmbeddedServer, redis, prefix: str, wait_for) -> Iterator[Site]:
    """A Flower that listens to events, with a login so that its API answers."""
    before = redis.pubsub_numpat() + len(redis.pubsub_channels())
    with flower(dict(os.environ), "--basic_auth=mate:secret") as started:
        wait_for(lambda: redis.pubsub_numpat() + len(redis.pubsub_channels()) > before, "Flower to listen")
        yield started


def wait_for_row(site: Site, wait_for, uuid: str) -> dict[str, object]:
    """Wait until Flower has a row, and return it."""
    rows = wait_for(lambda: (found := site.get("/api/tasks", LOGIN).json) and uuid in found and found, uuid)
    return rows[uuid]


def test_flower_keeps_only_ids_of_a_task(site: Site, server: EmbeddedServer, prefix: str, wait_for):
    """A producer's arguments of `midwatch.start`, a result and a traceback appear in no page, search or API."""
    app = make_app(Settings(redis_url=server.url, prefix=prefix))
    with app.connection_for_write() as connection:
        events = app.events.Dispatcher(connection, hostname="crew@here")
        start = {"uuid": "s1", "name": "midwatch.start", "args": "({'input': 'a whisper'},)", "kwargs": "{}"}
        step = {
            "uuid": "m1",
            "name": "midwatch.model",
            "args": "()",
            "kwargs": "{'job_id': 'j1', 'input': 'a whisper'}",
        }
        events.send("task-received", **start)
        events.send("task-received", **step)
        events.send("task-failed", uuid="m1", exception="KeyError('a whisper')", traceback="line 1, a whisper")
    assert wait_for_row(site, wait_for, "s1")["args"] == "hidden"
    wait_for(lambda: wait_for_row(site, wait_for, "m1")["state"] == "FAILURE", "the failure")
    row = wait_for_row(site, wait_for, "m1")
    assert row["kwargs"] == "{'job_id': 'j1'}"
    assert row["exception"] == "KeyError"
    assert "whisper" not in site.get("/api/tasks", LOGIN).text + site.get("/task/m1", LOGIN).text
    assert site.get("/api/tasks?search=whisper", LOGIN).json == {}


def test_a_jobs_row_does_not_count_as_a_task_of_its_worker(site: Site, stage: Stage, server, prefix: str, wait_for):
    """The row links to the job's page. The worker's numbers count tasks only."""
    events = JobEvents(make_app(Settings(redis_url=server.url, prefix=prefix)))
    claim = stage.begin()
    events.observe(claim, stage.trace(claim, "continue"), Continue())
    stage.complete(claim, "done")
    events.observe(claim, stage.trace(claim, "complete"), Complete(output="done"))
    job_id = claim.ref.job_id
    wait_for(lambda: wait_for_row(site, wait_for, job_id)["state"] == "SUCCESS", "the row's end")
    assert wait_for_row(site, wait_for, job_id)["name"] == "job:desk"
    assert f'href="/jobs/{job_id}"' in site.get(f"/task/{job_id}", LOGIN).text
    workers = site.get("/workers?json=1", LOGIN).json["data"]
    assert all(not worker.get("task-succeeded") and not worker.get("task-running") for worker in workers)


def test_a_late_event_does_not_turn_a_row_back(site: Site, server, prefix: str, wait_for):
    """Two workers changed one job's state within milliseconds, and the first worker's event arrived last."""
    app = make_app(Settings(redis_url=server.url, prefix=prefix))
    now = time.time()
    with app.connection_for_write() as connection:
        events = app.events.Dispatcher(connection, hostname="crew@here")
        row = {"name": "job:desk", "args": "()", "kwargs": "{}"}
        events.send("task-dead-lettered", uuid="j1", timestamp=now, **row)
        events.send("task-running", uuid="j1", timestamp=now - 0.01, **row)
        events.send("task-running", uuid="j2", timestamp=now, **row)
    wait_for_row(site, wait_for, "j2")
    assert wait_for_row(site, wait_for, "j1")["state"] == "DEAD-LETTERED"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("{'job_id': 'j', 'session_id': 's', 'step': '1.0'}", "{'job_id': 'j', 'session_id': 's', 'step': '1.0'}"),
        ("{'job_id': ['a whisper']}", "{}"),
        ("{'job_id': 'j', ...}", "hidden"),
        ("{'job_id': 'j', 'te...", "hidden"),
        ("'a whisper'", "hidden"),
        ("[" * 900, "hidden"),
        ("{" + "'a': 'b', " * 500 + "}", "hidden"),
    ],
)
def test_keyword_arguments_that_are_no_ids_are_hidden(given: str, kept: str):
    """Arguments that are cut off, nested or too long to check are hidden as a whole."""
    event = without_content({"type": "task-received", "uuid": "u", "kwargs": given})
    assert event["kwargs"] == kept


def test_worker_events_are_passed_on_unchanged():
    """A heartbeat has no content."""
    beat = {"type": "worker-heartbeat", "hostname": "h", "args": "not a task's"}
    assert without_content(beat) is beat
