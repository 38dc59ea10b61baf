"""Run a backlog twice on a real fleet: all jobs at once, and in waves that fill the slots."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.client.handle import JobHandle
from midwatch.orchestration.errors import MidwatchError
from midwatch.schemas.job import JobStatus
from midwatch.workers.bench.backlog.figures import Span, most_at_once, spans_of
from midwatch.workers.bench.backlog.plan import Plan
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.settings import Settings

PREFIX = "bench"
MODEL = "backlog:slow"
FIRST_TENANT, SECOND_TENANT = "first", "second"
WAIT_FACTOR = 4
"""A run is given up after this many times its shortest possible time (by slots or limit), plus a minute."""


def run(plan: Plan, *, waves: bool = True, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Run the plan.

    Returns:
        The plan; for `at_once` and `waves`: `completed`, `ended` (jobs by status), `paid_calls` and `needed_calls`,
        `took_s`, `most_begun` (the most jobs at once between their first model call and their end); `time_ratio`.

    """
    result: dict[str, Any] = plan.model_dump(exclude={"bill"}, exclude_none=True)
    say(f"{plan.jobs} jobs of {plan.turns} turns on {plan.slots} slots, all at once")
    result["at_once"] = at_once = run_fleet(plan, wave=None)
    if waves:
        say(f"the same jobs in waves of {plan.slots}")
        result["waves"] = in_waves = run_fleet(plan.model_copy(update={"others": 0}), wave=plan.slots)
        result["time_ratio"] = round(at_once["took_s"] / in_waves["took_s"], 3)
    return {**result, "load_1m": os.getloadavg()[0]}


def run_fleet(plan: Plan, *, wave: int | None) -> dict[str, Any]:
    """Run the jobs on a new fleet: all at once, or `wave` jobs at a time."""
    with (
        tempfile.TemporaryDirectory(prefix="midwatch-backlog-") as folder,
        EmbeddedServer(append_only="everysec") as server,
    ):
        bill = Path(folder) / "bill"
        bill.touch()
        plan = plan.model_copy(update={"bill": str(bill)})
        client = make_client(Settings(redis_url=server.url, prefix=PREFIX))
        with closing(client.store.client), Fleet(_environment(plan, server.url), Path(folder) / "logs") as fleet:
            _start_workers(fleet, plan)
            began_s = time.monotonic()
            jobs = _enqueue(client, plan, wave)
            _await_end(client, plan, len(jobs))
            took_s = time.monotonic() - began_s
            return _figures(client, jobs, plan) | {"paid_calls": bill.stat().st_size, "took_s": round(took_s, 1)}


def _environment(plan: Plan, redis_url: str) -> dict[str, str]:
    limits = {MODEL: {"rpm": plan.limit_per_s * 60}} if plan.limit_per_s else {}
    return {
        "MIDWATCH_REDIS_URL": redis_url,
        "MIDWATCH_PREFIX": PREFIX,
        "MIDWATCH_AGENTS": "midwatch.workers.bench.backlog.agents",
        "MIDWATCH_EVENTS": "false",
        "MIDWATCH_LIMITS": json.dumps(limits),
        Plan.VARIABLE: plan.model_dump_json(),
    }


def _start_workers(fleet: Fleet, plan: Plan) -> None:
    """Start one worker with all slots; if tools are tasks, another one for them."""
    queues = "model,maintenance" if plan.tool_s else "model,tools,maintenance"
    members = [fleet.start("models", worker_argv(queues, "threads", plan.slots))]
    if plan.tool_s:
        members.append(fleet.start("tools", worker_argv("tools", "threads", plan.slots)))
    for member in members:
        wait_ready(member, "ready", 90)


def _enqueue(client: Client, plan: Plan, wave: int | None) -> list[JobHandle]:
    """Enqueue all jobs. With `wave`, each wave waits for the end of the one before."""
    jobs: list[JobHandle] = []
    for n in range(plan.jobs):
        if wave and n % wave == 0:
            _await_end(client, plan, n)
        jobs.append(client.enqueue("backlog", f"steps={plan.turns}", tenant=FIRST_TENANT))
    others = [client.enqueue("backlog", f"steps={plan.turns}", tenant=SECOND_TENANT) for _ in range(plan.others)]
    return jobs + others


def _await_end(client: Client, plan: Plan, jobs: int) -> None:
    """Wait until so many jobs have ended."""
    rate = min(plan.slots / plan.call_s, plan.limit_per_s or float("inf"))
    if plan.tool_s:
        rate = min(rate, plan.slots / plan.tool_s)
    give_up_s = time.monotonic() + 60 + WAIT_FACTOR * plan.calls / rate
    endings = ("jobs.completed", "jobs.dead_lettered", "jobs.timed_out", "jobs.cancelled")
    while True:
        counters = client.operations.counters()
        ended = sum(counters.get(name, 0) for name in endings)
        if ended >= jobs:
            return
        if time.monotonic() > give_up_s:
            raise MidwatchError(f"{ended} of {jobs} jobs ended in time; the fleet is too slow for this plan")
        time.sleep(0.05)


def _figures(client: Client, jobs: Sequence[JobHandle], plan: Plan) -> dict[str, Any]:
    found = [handle.job() for handle in jobs]
    ended = Counter(job.status.value for job in found)
    spans = spans_of(client, found)
    figures = {
        "completed": ended[JobStatus.COMPLETED.value],
        "ended": dict(ended),
        "needed_calls": plan.calls,
        "most_begun": most_at_once(spans),
    }
    others = [span for span in spans if span.tenant == SECOND_TENANT]
    if others:
        figures["others_wait_s"] = round(max(span.wait_ms for span in others) / 1_000, 1)
        figures["first_wait_s"] = round(max(span.wait_ms for span in spans if span not in others) / 1_000, 1)
    return figures


__all__ = ["Plan", "Span", "run", "run_fleet"]
