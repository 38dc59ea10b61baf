"""`midwatch bench storm`: real workers, a real HTTP downstream in trouble, and the same load by Celery's own retries."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from midwatch.orchestration.client.handle import JobHandle
from midwatch.schemas.job import JobStatus
from midwatch.workers.bench.storm_real.call import DOWNSTREAM, MODEL, RETRIES_VARIABLE, URL_VARIABLE
from midwatch.workers.bench.storm_real.naive import play as play_naive
from midwatch.workers.bench.storm_real.plan import Calls, Scenario, Storm
from midwatch.workers.bench.storm_real.server import Downstream
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.settings import Settings

PREFIX = "bench"
BURST_S = 0.1
"""What the fleet is told that may come at once, in seconds of the limit: no second sees more than 1.1 times the limit, and 0.05
are left for what the way from a worker to the server adds on a busy machine."""
RETRIES = {"random": 10}
"""Of a call's own, where the default of 3 is too few for anybody: 0.3^4 of all calls fail four times in a row."""


def run(
    *,
    lineages: int = 40,
    processes: int = 2,
    outage_s: float = 60.0,
    limit_per_s: float = 40.0,
    scenario: Scenario = "outage",
    calls: Calls = "tool",
    naive: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Play one scenario to the fleet and, with `naive`, to Celery's `autoretry_for` with backoff and jitter.

    Args:
        lineages: roots with 8 x 8 children each; with `retry_after` lone calls, which are all in flight together.
        processes: workers, each a process with many threads.
        outage_s: how long the downstream is in trouble. Lineages start evenly within as long, from half of it before.
        limit_per_s: what it takes when it is well.
        scenario: `outage` answers 529 to everything, `random` to 30 %; `double` is an outage and a fleet that was told
            twice the limit; `retry_after` refuses all calls in flight at once, for 20 s (or `outage_s`, when it is less).
        calls: a tool's plain HTTP calls, or model calls through Anthropic's SDK.
        naive: play it to bare Celery too.
        say: told what is going on.

    Returns:
        The figures of `storm_figures`, and what the fleet says of itself: `jobs_lost`, `in_time` (false: the run was broken
        off), `waits_per_call` (how often a call was sent back to wait), `retries`. Under `naive` the same figures of bare
        Celery with retries until it succeeds, under `naive_default` with Celery's default of three.

    """
    storm = Storm(scenario, lineages, processes, outage_s, limit_per_s, calls)
    result: dict[str, Any] = {"scenario": scenario, "calls": calls, "lineages": lineages, "processes": processes}
    with tempfile.TemporaryDirectory(prefix="midwatch-storm-") as folder:
        say(f"{scenario}: {storm.logical} calls, {limit_per_s:g} a second: Midwatch")
        result |= play(storm, Path(folder) / "fleet")
        for name, retries in {"naive": None, "naive_default": 3}.items() if naive else ():
            say(
                f"{scenario}: Celery's autoretry_for, {'until it succeeds' if retries is None else f'{retries} retries'}"
            )
            result[name] = play_naive(storm, Path(folder) / name, retries)
    return {**result, "load_1m": os.getloadavg()[0]}


def play(storm: Storm, folder: Path) -> dict[str, Any]:
    """To the fleet."""
    with (
        EmbeddedServer(append_only="everysec") as server,
        Downstream(storm.course()) as downstream,
        Fleet(environment(storm, server.url, downstream.url), folder) as fleet,
    ):
        client = make_client(Settings(redis_url=server.url, prefix=PREFIX))
        with closing(client.store.client):
            argv = worker_argv("model,tools,maintenance", "threads", storm.threads)
            for member in [fleet.start(f"worker-{n}", argv) for n in range(storm.processes)]:
                wait_ready(member, "ready", 90)
            jobs: list[JobHandle] = []
            storm.start(downstream, lambda name: jobs.append(client.enqueue(f"storm-{storm.calls}-root", name)))
            open_jobs = list(jobs)
            in_time = storm.await_end(downstream, lambda: over(open_jobs))
            lost = sum(job.status() is not JobStatus.COMPLETED for job in jobs)
            gate = client.gate.show(told(storm))
        own = {"jobs_lost": lost, "in_time": in_time, "waits_per_call": round(gate.waited / storm.logical, 2)}
        return storm.figures(downstream) | own | {"retries": gate.retried}


def environment(storm: Storm, redis_url: str, downstream_url: str) -> dict[str, str]:
    """Of the workers: where things are, and what the downstream takes."""
    rate = storm.limit_per_s * 60 * (2 if storm.scenario == "double" else 1)
    return {
        "MIDWATCH_REDIS_URL": redis_url,
        "MIDWATCH_PREFIX": PREFIX,
        "MIDWATCH_AGENTS": "midwatch.workers.bench.storm_real.agents",
        "MIDWATCH_EVENTS": "false",
        "MIDWATCH_LIMITS": json.dumps({told(storm): {"rpm": rate, "burst_s": BURST_S}}),
        "ANTHROPIC_BASE_URL": downstream_url,
        "ANTHROPIC_API_KEY": "simulated",
        URL_VARIABLE: downstream_url,
        RETRIES_VARIABLE: str(RETRIES.get(storm.scenario, 3)),
    }


def told(storm: Storm) -> str:
    """The downstream's name in the coordinator."""
    return MODEL if storm.calls == "model" else DOWNSTREAM


def over(open_jobs: list[JobHandle]) -> bool:
    """Have all ended? Those that have are struck off, so that nobody asks about them again."""
    while open_jobs and open_jobs[-1].status().ended:
        open_jobs.pop()
    return not open_jobs
