"""The load of `bench storm` with Celery alone: `autoretry_for` with backoff and jitter, as in Celery's user guide.

`run_naive` starts workers with this module as their app: `celery -A midwatch.workers.bench.storm_real.naive worker`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery

from midwatch.workers.bench.storm_real.call import RETRIES_VARIABLE, URL_VARIABLE, Refused, calls_below, make_call
from midwatch.workers.bench.storm_real.plan import Storm
from midwatch.workers.bench.storm_real.server import Downstream
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready

REDIS_VARIABLE = "STORM_REDIS_URL"
TASK = "storm.call"
QUIET_S = 20.0
"""With bounded retries, a run is over after this time without requests. Three retries wait at most 1, 2 and 4 s."""

RETRIES = os.environ.get(RETRIES_VARIABLE, "")
"""Empty: a task is retried until it succeeds."""

app = Celery("storm", broker=os.environ.get(REDIS_VARIABLE, "redis://127.0.0.1:6379/0"), set_as_current=False)
app.conf.update(
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,  # otherwise one worker keeps messages for which the other has free threads
)


@app.task(
    name=TASK,
    autoretry_for=(Refused, OSError),
    retry_backoff=True,
    retry_jitter=True,
    max_retries=int(RETRIES) if RETRIES else None,
)
def call(name: str) -> None:
    """Make one call. After its answer, send the calls below it."""
    make_call(name)
    for one in calls_below(name):
        call.delay(one)


def run_naive(storm: Storm, folder: Path, retries: int | None) -> dict[str, Any]:
    """Run a storm with workers of this app. With `retries=None` each task is retried until it succeeds."""
    # Single calls must all run at once, and workers share them unevenly: each worker has threads for all.
    threads = storm.lineages if storm.is_single else storm.threads
    pool = ["--pool", "threads", "--concurrency", str(threads)]
    argv = [sys.executable, "-m", "celery", "-A", __name__, "worker", *pool]
    with EmbeddedServer(append_only="everysec") as server, Downstream(storm.course()) as downstream:
        env = {
            REDIS_VARIABLE: server.url,
            URL_VARIABLE: downstream.url,
            RETRIES_VARIABLE: "" if retries is None else str(retries),
        }
        with Fleet(env, folder) as fleet, Celery("storm", broker=server.url, set_as_current=False) as producer:
            for n in range(storm.processes):
                member = fleet.start(f"worker-{n}", [*argv, "-n", f"storm-{n}@%h", "--loglevel", "INFO"])
                wait_ready(member, "ready.", 90)
            storm.start(downstream, lambda name: producer.send_task(TASK, (name,), ignore_result=True))

            def is_over() -> bool:
                given_up = retries is not None and downstream.quiet_s() > QUIET_S
                return given_up or len(downstream.answered()) == storm.logical

            in_time = storm.await_end(downstream, is_over)
        return storm.figures(downstream) | {"in_time": in_time}
