"""A fleet that shares its broker with a plain Celery application: inspections, Flower, and messages of the other's queues."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from midwatch.orchestration.keyspace import Keyspace
from midwatch.workers.celery_app.fleet_app import make_app
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.settings import Settings
from tests.browser.stage import Site, flower
from tests.patience import PATIENCE_S, wait_for

ROOT = Path(__file__).parents[2]
INSPECTIONS = ("ping", "active", "stats", "registered", "active_queues", "reserved", "scheduled", "conf", "report")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, connect_redis: Any) -> Iterator[SimpleNamespace]:
    """One server, one worker of the fleet, one worker of the other application, and `midwatch flower`."""
    folder = tmp_path_factory.mktemp("neighbours")
    with EmbeddedServer(append_only=None) as server, pytest.MonkeyPatch.context() as environment:
        shared = {
            "MIDWATCH_REDIS_URL": server.url,
            "MIDWATCH_AGENTS": "tests.functional.fleet_agents",
            "SHOP_BROKER": server.url,
            "PYTHONPATH": str(ROOT),
            "ANTHROPIC_API_KEY": "none",
            "OPENAI_API_KEY": "none",
        }
        for name, value in shared.items():
            environment.setenv(name, value)
        with Fleet(shared, folder) as fleet:
            ours = fleet.start("ours", worker_argv("model,tools", "threads", 2, "ours"))
            wait_ready(ours, "ready", timeout_s=PATIENCE_S)
            celery = [sys.executable, "-m", "celery", "-A", "tests.functional.shop_celery", "worker"]
            theirs = fleet.start("theirs", [*celery, "-P", "solo", "-n", "theirs@%h", "-l", "INFO"])
            wait_ready(theirs, "ready", timeout_s=PATIENCE_S)
            with flower({**os.environ, **shared}) as site:
                yield SimpleNamespace(
                    server=server,
                    redis=connect_redis(server.url),
                    ours=ours,
                    theirs=theirs,
                    site=site,
                    folder=folder,
                    apps={
                        "fleet": make_app(Settings(redis_url=server.url)),
                        "shop": Celery("shop", broker=server.url, set_as_current=False),
                    },
                )


@pytest.fixture(autouse=True)
def no_poison(stage: SimpleNamespace) -> Iterator[None]:
    """Nothing in this module is poison."""
    yield
    assert stage.redis.lrange(Keyspace(Settings().prefix).poison(), 0, -1) == []
    assert "message.poison" not in (stage.folder / "ours.log").read_text()


@pytest.mark.parametrize("name", ["fleet", "shop"])
def test_both_apps_inspect_the_workers_of_both(stage: SimpleNamespace, name: str) -> None:
    """Each of Celery's inspections is answered by both workers, whichever app asks. So is remote control."""
    app = stage.apps[name]
    with closing(app.connection_for_write()) as connection:
        for inspection in INSPECTIONS:
            inspect = app.control.inspect(timeout=PATIENCE_S, limit=2, connection=connection)
            answers = getattr(inspect, inspection)() or {}
            assert sorted(worker.partition("@")[0] for worker in answers) == ["ours", "theirs"], inspection
        replies = app.control.broadcast(
            "pool_grow", arguments={"n": 0}, reply=True, timeout=PATIENCE_S, limit=2, connection=connection
        )
        assert len(replies) == 2
    app.close()


def test_celerys_command_line_sees_both_workers(stage: SimpleNamespace) -> None:
    """`celery -A midwatch.workers.celery_app.app status` says that two nodes are online."""
    ran = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "midwatch.workers.celery_app.app", "status"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=ROOT,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "2 nodes online" in ran.stdout


def test_a_worker_of_celery_mingles_with_the_fleet(stage: SimpleNamespace) -> None:
    """At its start the other worker asked for the clocks of all workers, and ours answered."""
    assert "mingle: sync with 1 nodes" in (stage.folder / "theirs.log").read_text()


def test_flower_has_the_pages_of_both_workers(stage: SimpleNamespace) -> None:
    """Also the details of each worker, which come from an inspection, and Flower's own API."""
    site: Site = stage.site
    names = wait_for(lambda: _find_workers(site), "both workers on Flower's page")
    for name in names:
        wait_for(lambda name=name: site.get(f"/worker/{name}").code == 200, f"the page of {name}")  # type: ignore[misc]
        assert "Worker pool options" in site.get(f"/worker/{name}").text
    for page in ("/tasks", "/broker", "/jobs", "/dead-letters"):
        assert site.get(page).code == 200, page


def _find_workers(site: Site) -> list[str]:
    page = site.get("/workers").text
    found = [f"{name}@{os.uname().nodename}" for name in ("ours", "theirs")]
    return found if all(name in page for name in found) else []


def test_a_queue_of_others_is_read_as_celery_reads_it(stage: SimpleNamespace) -> None:
    """A worker that also consumes such a queue drops unknown tasks and garbage, as every Celery worker does, and goes
    on."""
    shop, log = stage.apps["shop"], stage.folder / "ours.log"
    destination = [f"ours@{os.uname().nodename}"]
    with closing(shop.connection_for_write()) as connection:
        shop.control.add_consumer(
            "shop.model", reply=True, destination=destination, timeout=PATIENCE_S, limit=1, connection=connection
        )
        for number in (0, 9):
            shop.send_task("shop.unheard", args=[number], queue="shop.model", priority=number, countdown=1)
        stage.redis.lpush("shop.model", b"no json", b"[" * 5_000)
        wait_for(lambda: log.read_text().count("shop.unheard") >= 2, "both tasks to be refused by Celery")
        wait_for(lambda: log.read_text().count("message.foreign_dropped") == 2, "the garbage to be dropped")
        shop.control.cancel_consumer(
            "shop.model", reply=True, destination=destination, timeout=PATIENCE_S, limit=1, connection=connection
        )
    assert stage.ours.alive
    shop.close()


def test_tasks_of_the_other_application_run(stage: SimpleNamespace) -> None:
    """Its worker takes them from its own queue."""
    shop = stage.apps["shop"]
    shop.send_task("shop.add", args=[2, 3])
    wait_for(lambda: "sum 5" in (stage.folder / "theirs.log").read_text(), "the sum")
    shop.close()
