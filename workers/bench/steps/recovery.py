"""`midwatch bench recovery`: kill all workers with SIGKILL, restart them, and measure how soon every step goes on."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.errors import MidwatchError
from midwatch.schemas.job import JobStatus
from midwatch.workers.bench.steps.fleet_run import PREFIX
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.local.process import Member
from midwatch.workers.settings import Settings

STEPS = 8
TIMEOUT_S = 120.0


def run(
    *, jobs: int = 20, kills: int = 2, processes: int = 2, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Kill all workers `kills` times, some seconds apart.

    Returns:
        `resume_p50_s` and `resume_max_s`: time from the kill to the new claim of a running step. `lost`: jobs that did not
        complete. `duplicate_effects`: tool effects beyond one per call, counted in a file outside Redis.
    """
    with (
        tempfile.TemporaryDirectory(prefix="midwatch-recovery-") as folder,
        EmbeddedServer(append_only="everysec") as server,
    ):
        effects = Path(folder) / "effects"
        env = {
            "MIDWATCH_REDIS_URL": server.url,
            "MIDWATCH_PREFIX": PREFIX,
            "MIDWATCH_AGENTS": "midwatch.workers.bench.steps.agents",
            "MIDWATCH_EVENTS": "false",
            "BENCH_EFFECTS": str(effects),
        }
        client = make_client(Settings(redis_url=server.url, prefix=PREFIX))
        with Fleet(env, Path(folder) / "logs") as fleet:
            argv = worker_argv("model,tools,maintenance", "threads", jobs)
            workers = [fleet.start(f"worker-{n}", argv) for n in range(processes)]
            for worker in workers:
                wait_ready(worker, "ready", 60)
            handles = [client.enqueue("bench-slow", f"steps={STEPS}") for _ in range(jobs)]
            resumed: list[float] = []
            for n in range(kills):
                time.sleep(2.0)
                say(f"kill {n + 1} of {kills}: kill -9 of every worker, then an immediate restart")
                resumed += _kill_and_time(client, workers)
            _await_jobs(client, jobs)
            ended = Counter(handle.status() for handle in handles)
        lines = effects.read_text().split() if effects.exists() else []
    return {
        "jobs": jobs,
        "kills": kills,
        "steps_in_flight": len(resumed),
        "lost": jobs - ended[JobStatus.COMPLETED],
        "duplicate_effects": sum(count - 1 for count in Counter(lines).values()),
        "resume_p50_s": round(statistics.median(resumed), 2) if resumed else None,
        "resume_max_s": round(max(resumed), 2) if resumed else None,
        "load_1m": os.getloadavg()[0],
    }


def _find_running_steps(client: Client) -> dict[str, list[str]]:
    """Return job -> steps that a worker has claimed now."""
    store = client.store
    found: dict[str, list[str]] = {}
    for job in client.jobs.list(limit=10_000, status="running"):
        rows: Any = store.client.hgetall(store.keys.steps(job.session_id, job.job_id))
        started = [step.decode() for step, row in rows.items() if row.startswith(b"started|")]
        if started:
            found[job.job_id] = started
    return found


def _server_ms(client: Client) -> int:
    seconds, micros = client.store.client.time()
    return int(seconds) * 1_000 + int(micros) // 1_000


def _kill_and_time(client: Client, workers: list[Member]) -> list[float]:
    for worker in workers:
        worker.kill_group()
    killed_ms = _server_ms(client)
    running = _find_running_steps(client)
    for worker in workers:
        worker.restart()
    resumed: list[float] = []
    give_up_s = time.monotonic() + TIMEOUT_S
    while running and time.monotonic() < give_up_s:
        time.sleep(0.2)
        for job_id, steps in list(running.items()):
            starts = {r.step: r.started_ms for r in client.jobs.trace(job_id) if r.started_ms >= killed_ms}
            for step in [step for step in steps if step in starts]:
                resumed.append((starts[step] - killed_ms) / 1_000)
                steps.remove(step)
            if not steps:
                del running[job_id]
    if running:
        jobs = ", ".join(running)
        raise MidwatchError(f"{len(running)} jobs did not go on within {TIMEOUT_S:g} s of the kill: {jobs}")
    return resumed


def _await_jobs(client: Client, jobs: int) -> None:
    give_up_s = time.monotonic() + TIMEOUT_S
    while client.operations.counters().get("jobs.completed", 0) < jobs and time.monotonic() < give_up_s:
        time.sleep(0.1)
