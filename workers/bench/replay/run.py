"""Run `bench replay`: letters of an outage, redriven when the provider is back; then a cause that stays."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.client.handle import JobHandle
from midwatch.orchestration.client.letters.replay_window import PROBES
from midwatch.schemas.job import JobStatus
from midwatch.workers.bench.replay.plan import Plan, Switch
from midwatch.workers.bench.storm_real.call import MODEL, SINGLE
from midwatch.workers.bench.storm_real.course import Limit
from midwatch.workers.bench.storm_real.figures import most_in_window
from midwatch.workers.bench.storm_real.run import BURST_S, PREFIX
from midwatch.workers.bench.storm_real.server import Downstream
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.settings import Settings

AGENT = "replay"
PROCESSES, THREADS = 2, 24
FIRST_WAIT_MS = 3_000
"""MIDWATCH_REDRIVE_MS of the workers."""
QUIET_S = 5.0
"""After the last probes of the cause that stays, how long no call may follow."""
POLL_S = 0.1


@dataclass
class Run:
    """A fleet, its downstream, and the jobs of one run."""

    plan: Plan
    client: Client
    downstream: Downstream
    course: Switch
    live: list[JobHandle] = field(default_factory=list)

    def enqueue(self, count: int, name: str) -> None:
        """Enqueue jobs. Each makes one call of its name."""
        for n in range(count):
            self.client.enqueue(AGENT, f"{SINGLE}{name}-{n}")

    def count_letters(self) -> int:
        """Number of dead letters."""
        return self.client.operations.letters.count()

    def wait_for(self, what: str, is_true: Callable[[], bool]) -> None:
        """Wait until something is true. Raises TimeoutError."""
        give_up_s = time.monotonic() + self.plan.patience_s
        while not is_true():
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"bench replay: no {what} within {self.plan.patience_s:.0f} s")
            time.sleep(POLL_S)

    @contextmanager
    def live_load(self, name: str) -> Iterator[list[float]]:
        """Enqueue live jobs at a steady rate while the block runs. The list is filled with their times in ms, at the end."""
        stop, handles, times_ms = threading.Event(), list[JobHandle](), list[float]()

        def feed() -> None:
            next_s = time.monotonic()
            while not stop.wait(max(0.0, next_s - time.monotonic())):
                handles.append(self.client.enqueue(AGENT, f"{SINGLE}{name}-{len(handles)}"))
                next_s += 1 / self.plan.live_per_s

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            yield times_ms
        finally:
            stop.set()
            thread.join()
            self.live += handles
        for handle in handles:
            handle.result(self.plan.patience_s)
            job = handle.job()
            times_ms.append((job.finished_ms or 0) - job.created_ms)

    def is_recovered(self) -> bool:
        """Does the coordinator allow the whole limit?"""
        status = self.client.gate.show(MODEL)
        return status.breaker == "closed" and status.rate_factor >= 1

    def is_healed(self) -> bool:
        """Have all jobs whose letters the outage made got their answer?"""
        return len(_answered(self.downstream, "letter")) >= self.plan.letters

    def count(self, name: str) -> int:
        """One of the fleet's counters."""
        return self.client.operations.counters().get(name, 0)

    def stopped_batches(self) -> int:
        """How many batches of probes failed again, of all causes."""
        states = self.client.store.client.hvals(self.client.operations.keys.redrive())
        return sum(int(json.loads(raw)["waits"]) for raw in states)


def run(plan: Plan, *, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Run the plan, and return its figures. `say` is called with progress messages."""
    with tempfile.TemporaryDirectory(prefix="midwatch-replay-") as folder:
        course = Switch(Limit(plan.limit_per_s))
        with (
            EmbeddedServer(append_only="everysec") as server,
            Downstream(course, latency_s=0.05) as downstream,
            Fleet(environment(plan, server.url, downstream.url), Path(folder)) as fleet,
        ):
            client = make_client(Settings(redis_url=server.url, prefix=PREFIX))
            with closing(client.store.client):
                argv = worker_argv("model,tools,maintenance", "threads", THREADS)
                for member in [fleet.start(f"worker-{n}", argv) for n in range(PROCESSES)]:
                    wait_ready(member, "ready", 90)
                one = Run(plan, client, downstream, course)
                downstream.begin()
                say(f"live jobs alone: {plan.live_per_s:g} a second for {plan.alone_s:g} s")
                alone_ms = run_live_alone(one)
                healed = run_healing(one, alone_ms, say)
                stays = run_staying(one, say)
    return {"letters": plan.letters, **healed, **stays, "load_1m": round(os.getloadavg()[0], 1)}


def environment(plan: Plan, redis_url: str, downstream_url: str) -> dict[str, str]:
    """The workers' environment: addresses, the agent and the limit."""
    return {
        "MIDWATCH_REDIS_URL": redis_url,
        "MIDWATCH_PREFIX": PREFIX,
        "MIDWATCH_AGENTS": "midwatch.workers.bench.replay.agents",
        "MIDWATCH_EVENTS": "false",
        "MIDWATCH_REDRIVE_MS": str(FIRST_WAIT_MS),
        "MIDWATCH_LIMITS": json.dumps({MODEL: {"rpm": plan.limit_per_s * 60, "burst_s": BURST_S}}),
        "ANTHROPIC_BASE_URL": downstream_url,
        "ANTHROPIC_API_KEY": "simulated",
        Plan.VARIABLE: plan.model_dump_json(),
    }


def run_live_alone(one: Run) -> list[float]:
    """The times of live jobs without any other work. The first seconds warm the fleet up, and are not counted."""
    with one.live_load("warm"):
        time.sleep(2)
    with one.live_load("alone") as alone_ms:
        time.sleep(one.plan.alone_s)
    return alone_ms


def run_healing(one: Run, alone_ms: list[float], say: Callable[[str], None]) -> dict[str, Any]:
    """An outage makes letters. The provider comes back, and live jobs run on while the letters are redriven."""
    plan, downstream = one.plan, one.downstream
    say(f"outage: {plan.letters:,} jobs become dead letters (max_wait_s={plan.max_wait_s:.0f})")
    one.course.is_away = True
    one.enqueue(plan.letters, "letter")
    one.wait_for("dead letters", lambda: one.count("jobs.dead_lettered") >= plan.letters)
    say("the provider is back: live jobs, and the redrive")
    before = len(downstream.arrivals)
    letters, back_s = one.count_letters(), downstream.now_s()
    one.course.is_away = False
    answered_before = len(downstream.answered())
    with one.live_load("recovering") as recovering_ms:  # the coordinator starts slowly after an outage
        one.wait_for("recovery", lambda: one.is_recovered() or one.is_healed())
    with one.live_load("beside") as beside_ms:
        time.sleep(2)
        one.wait_for("end of the redrive", one.is_healed)
    arrivals = downstream.arrivals[before:]
    last_s = max(one.at_s for one in arrivals if one.call.startswith(f"{SINGLE}letter"))
    needed = len(downstream.answered()) - answered_before
    peak = most_in_window([arrival.at_s for arrival in arrivals])
    alone, beside = _p95(alone_ms), _p95(beside_ms)
    return {
        "letters_when_back": letters,
        "limit_per_s": plan.limit_per_s,
        "peak_per_s": peak,
        "redrive_s": round(last_s - back_s, 1),
        "ideal_s": round(plan.letters / (plan.limit_per_s - plan.live_per_s), 1),
        "calls": len(arrivals),
        "calls_needed": needed,
        "letters_left": one.count_letters(),
        "redriven": one.count("letters.redriven"),
        "live_jobs_beside": len(beside_ms),
        "live_p95_alone_ms": alone,
        "live_p95_recovering_ms": _p95(recovering_ms),
        "live_p95_beside_ms": beside,
        "live_p95_ratio": round(beside / alone, 2),
        "live_jobs_lost": sum(handle.status() is not JobStatus.COMPLETED for handle in one.live),
    }


def run_staying(one: Run, say: Callable[[str], None]) -> dict[str, Any]:
    """A second outage, which does not end. Counts the calls until the redrive stops."""
    plan, downstream = one.plan, one.downstream
    say(f"a cause that stays: {plan.staying} letters")
    one.course.is_away = True
    redriven, died = one.count("letters.redriven"), one.count("jobs.dead_lettered")
    one.enqueue(plan.staying, "staying")
    one.wait_for("dead letters", lambda: one.count("jobs.dead_lettered") >= died + plan.staying - PROBES)
    one.wait_for("first replay", lambda: one.count("letters.redriven") > redriven)
    before, batches = len(downstream.arrivals), one.stopped_batches()
    one.wait_for("stop of the redrive", lambda: one.stopped_batches() > batches)
    calls, tried = len(downstream.arrivals) - before, one.count("letters.redriven") - redriven
    time.sleep(QUIET_S)
    return {
        "staying_letters": plan.staying,
        "staying_replayed": tried,
        "staying_calls": calls,
        "staying_calls_after": len(downstream.arrivals) - before - calls,
    }


def _answered(downstream: Downstream, name: str) -> set[str]:
    """The calls of one name that were answered. All tries at a call have the call's name."""
    return {call for call in downstream.answered() if call.startswith(f"{SINGLE}{name}")}


def _p95(times_ms: list[float]) -> float:
    if len(times_ms) < 2:
        return sum(times_ms)
    return round(quantiles(times_ms, n=20, method="inclusive")[-1], 1)
