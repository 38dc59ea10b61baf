"""Without hand-off, steps are published by Celery itself: on the same server, on another database, on another server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from midwatch.orchestration.keyspace import PARTITIONS
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import Priority
from midwatch.workers.celery_app.app import APP_SETTINGS
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.celery_app.write_message import queue_key
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.settings import Settings, settings
from tests.functional.fleet_agents import desk, head, plain, workshops
from tests.functional.fleet_marks import marks
from tests.functional.fleet_stage import ROOT, close, fleet_on_stage, told, use
from tests.patience import PATIENCE_S

BROKERS = ("hand-off off", "another database", "another server")


@pytest.fixture(scope="module", params=BROKERS)
def stage(request, server, lend_prefix, tmp_path_factory, connect_redis):
    """A fleet for each way of publishing."""
    folder = tmp_path_factory.mktemp("broker")
    elsewhere = EmbeddedServer(append_only=None) if request.param == "another server" else None
    broker_url = {
        "hand-off off": None,
        "another database": f"{server.url.removesuffix('0')}1",
        "another server": elsewhere.url if elsewhere else None,
    }[request.param]
    env = {"MIDWATCH_BROKER_URL": broker_url} if broker_url else {"MIDWATCH_HAND_OFF": "false"}
    with lend_prefix() as prefix, fleet_on_stage(server.url, prefix, folder, env=env) as stage:
        stage.broker = connect_redis(broker_url or server.url)
        yield stage
    if request.param == "another database":
        stage.broker.flushdb()
    if elsewhere:
        elsewhere.stop()


WORKSHOP = workshops["anthropic"]


def test_a_short_job_runs(stage):
    """The job is enqueued, published by Celery, and completes."""
    assert plain.run("hello", timeout_s=PATIENCE_S).output == "You said: hello"


def test_addresses_may_be_arguments_instead_of_environment_variables(stage, server, monkeypatch):
    """`connect(redis_url, broker_url)` publishes to those addresses, also with a job enqueued by name."""
    for name in ("MIDWATCH_REDIS_URL", "MIDWATCH_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    kwargs = stage.broker.connection_pool.connection_kwargs
    broker_url = f"redis://127.0.0.1:{kwargs['port']}/{kwargs['db']}"
    handle = stage.connect(redis_url=server.url, broker_url=broker_url).enqueue("plain", "hello")
    assert handle.result(PATIENCE_S).output == "You said: hello"


def test_a_parallel_fan_out_fans_in_once(stage):
    """Five calls run at the same time, one model turn follows, and results are in the order of the calls."""
    text = stage.cast([use(*[("meet", {"number": n, "of": 5}) for n in range(1, 6)]), "Done."])
    handle = WORKSHOP.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[1]) == [f"call {n} of 5" for n in range(1, 6)]
    assert len(stage.heard(text)) == 2


def test_a_deferred_retry_is_released_by_a_steward(stage):
    """A tool fails twice and is retried with the same idempotency key."""
    text = stage.cast([use(("unsteady", {"failures": 2})), "Done."])
    handle = WORKSHOP.enqueue(text)
    assert handle.result(PATIENCE_S).output == "Done."
    assert told(stage.heard(text)[1]) == ["answered at try 3"]
    assert len(marks(f"unsteady-{handle.id}")) == 3


def test_sessions_children_and_approvals_are_published_by_celery_too(stage):
    """A step is published by the session's previous job, by a child's end, by a decision, or by a cancel."""
    first, second = (plain.enqueue(f"turn {n}", session_id="celery") for n in (1, 2))
    assert (first.result(PATIENCE_S).output, second.result(PATIENCE_S).output) == (
        "You said: turn 1",
        "You said: turn 2",
    )
    task = stage.cast(["Written."])
    assert head.run(stage.cast([use(("scribe", {"input": task})), "Done."]), timeout_s=PATIENCE_S).output == "Done."
    parked = desk.enqueue(stage.cast([use(("wipe", {"target": "x"})), "Done."]))
    assert parked.result(PATIENCE_S).status is JobStatus.PARKED
    assert parked.approve()
    assert parked.result(PATIENCE_S).output == "Done."
    hauling = WORKSHOP.enqueue(stage.cast([use(("long_haul", {}))]))
    hauling.cancel()
    assert hauling.result(PATIENCE_S).status is JobStatus.CANCELLED


def test_a_producer_publishes_to_the_address_of_its_settings(monkeypatch):
    """The process has read its settings twice and has an app for the old ones. New producers publish to the new address."""
    with EmbeddedServer(append_only=None) as own:
        monkeypatch.delenv("MIDWATCH_BROKER_URL", raising=False)  # a stage of this module may have an app
        monkeypatch.setenv("MIDWATCH_REDIS_URL", own.url)
        monkeypatch.setenv("MIDWATCH_HAND_OFF", "false")
        assert Settings() != APP_SETTINGS
        settings.cache_clear()
        client = make_client(Settings())
        client.enqueue("plain", "hello")
        keys = client.operations.keys
        assert client.store.client.llen(queue_key(keys.queue("model"), Priority.NORMAL, first=True)) == 1
        close(client)
    settings.cache_clear()


WEB_APPLICATION = """
from celery import Celery, current_app
web = Celery("web")
from tests.functional.fleet_agents import plain
handle = plain.enqueue("hello")
assert current_app.main == "web", current_app
print(handle.id)
"""


def test_a_producers_own_celery_app_stays_the_current_one(stage):
    """A web application with its own Celery app still publishes its tasks to its own broker."""
    ran = subprocess.run(
        [sys.executable, "-c", WEB_APPLICATION], capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr
    assert stage.client.jobs.get(ran.stdout.strip()).result(PATIENCE_S).output == "You said: hello"


def test_a_broker_that_is_down_loses_no_job(server, lend_prefix):
    """The job is stored and its step marked as owed, so enqueue succeeds. A steward publishes the step later."""
    with lend_prefix() as prefix:
        away = make_client(Settings(redis_url=server.url, broker_url="redis://127.0.0.1:1/0", prefix=prefix))
        handle = away.enqueue("plain", "hello")
        assert handle.status() is JobStatus.QUEUED
        assert sum(away.store.client.zcard(away.operations.keys.index(p, "owed")) for p in range(PARTITIONS)) == 1
        close(away)
