"""`midwatch bench storm`: run a storm with real workers and a real downstream, and with Celery's retries for comparison."""

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
from midwatch.workers.bench.storm_real.naive import run_naive
from midwatch.workers.bench.storm_real.plan import Calls, Scenario, Storm
from midwatch.workers.bench.storm_real.server import Downstream
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.settings import Settings

PREFIX = "bench"
BURST_S = 0.1
"""The fleet's burst, in seconds of the limit. With it no second has more than 1.1 times the limit. The target is 1.15; the
other 0.05 are for delays between worker and server on a busy machine."""
RETRIES = {"random": 10}
"""Scenario -> retries of a call, if the default of 3 is too few. In `random`, 0.3^4 of all calls fail four times in a row."""


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
    """Run one scenario with the fleet and, if `naive`, with Celery's `autoretry_for` with backoff and jitter.

    Args:
        lineages: number of roots with 8 x 8 children each. With `retry_after`: number of single calls, all at once.
        processes: worker processes, each with many threads.
        outage_s: length of the trouble. The starts of the lineages are spread over the same length of time; half of it
            is before the trouble begins.
        limit_per_s: the limit of the healthy downstream.
        scenario: `outage` answers 529 to all calls, `random` to 30 %. `double` is an outage with a fleet whose limit is set
            twice too high. `retry_after` refuses all held calls at once, for 20 s (or `outage_s` if that is shorter).
        calls: plain HTTP calls of a tool, or model calls through Anthropic's SDK.
        naive: also run the scenario with bare Celery.
        say: called with progress messages.

    Returns:
        The figures of `compute_figures`, and figures from the fleet: `jobs_lost`, `in_time` (False: the run was stopped),
        `waits_per_call` (how often a call had to wait), `retries`. `naive` has the figures of bare Celery with unlimited
        retries, `naive_default` with Celery's default of three.

    """
    storm = Storm(scenario, lineages, processes, outage_s, limit_per_s, calls)
    result: dict[str, Any] = {"scenario": scenario, "calls": calls, "lineages": lineages, "processes": processes}
    with tempfile.TemporaryDirectory(prefix="midwatch-storm-") as folder:
        say(f"{scenario}: {storm.logical} calls, {limit_per_s:g} a second: Midwatch")
        result |= run_fleet(storm, Path(folder) / "fleet")
        for name, retries in {"naive": None, "naive_default": 3}.items() if naive else ():
            say(
                f"{scenario}: Celery's autoretry_for, {'until it succeeds' if retries is None else f'{retries} retries'}"
            )
            result[name] = run_naive(storm, Path(folder) / name, retries)
    return {**result, "load_1m": os.getloadavg()[0]}


def run_fleet(storm: Storm, folder: Path) -> dict[str, Any]:
    """Run a storm with the fleet."""
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
            in_time = storm.await_end(downstream, lambda: have_ended(open_jobs))
            lost = sum(job.status() is not JobStatus.COMPLETED for job in jobs)
            gate = client.gate.show(downstream_name(storm))
        own = {"jobs_lost": lost, "in_time": in_time, "waits_per_call": round(gate.waited / storm.logical, 2)}
        return storm.figures(downstream) | own | {"retries": gate.retried}


def environment(storm: Storm, redis_url: str, downstream_url: str) -> dict[str, str]:
    """Return the workers' environment: addresses, agents and limits."""
    rate = storm.limit_per_s * 60 * (2 if storm.scenario == "double" else 1)
    return {
        "MIDWATCH_REDIS_URL": redis_url,
        "MIDWATCH_PREFIX": PREFIX,
        "MIDWATCH_AGENTS": "midwatch.workers.bench.storm_real.agents",
        "MIDWATCH_EVENTS": "false",
        "MIDWATCH_LIMITS": json.dumps({downstream_name(storm): {"rpm": rate, "burst_s": BURST_S}}),
        "ANTHROPIC_BASE_URL": downstream_url,
        "ANTHROPIC_API_KEY": "simulated",
        URL_VARIABLE: downstream_url,
        RETRIES_VARIABLE: str(RETRIES.get(storm.scenario, 3)),
    }


def downstream_name(storm: Storm) -> str:
    """Return the downstream's name in the coordinator."""
    return MODEL if storm.calls == "model" else DOWNSTREAM


def have_ended(open_jobs: list[JobHandle]) -> bool:
    """Have all jobs ended? Ended jobs are removed from the end of the list, so they are not read again."""
    while open_jobs and open_jobs[-1].status().ended:
        open_jobs.pop()
    return not open_jobs
