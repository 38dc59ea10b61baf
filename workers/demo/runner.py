"""`midwatch demo`: run a real fleet with faults switched on, and account for every job."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.client.handle import JobHandle
from midwatch.orchestration.client.job_result import JobResult, result_of
from midwatch.schemas.job import JobStatus
from midwatch.workers.demo.account import Account
from midwatch.workers.demo.desk.tickets import CheckReport, Ticket, check, make_tickets, open_desk
from midwatch.workers.demo.dev import wait_for_interrupt
from midwatch.workers.demo.killer import Killer
from midwatch.workers.demo.screen import Screen
from midwatch.workers.demo.stage import Stage

SEED = 20
CHAOS = (
    "rate_limited=0.03,overloaded=0.03,provider_error=0.02,reset=0.02,truncated=0.01,error_in_200=0.01,drip=0.005,"
    "malformed_arguments=0.03,invalid_arguments=0.06,unknown_tool=0.02,repeated_id=0.05,no_usage=0.02"
)
"""Faults of the model server. About one call in three goes wrong."""
FLAKY = "0.05"
"""Share of the desk's service calls that fail. Half of them fail after the work was done."""
STALLED_S = 300.0
"""The demo gives up when no step was committed for this long. Open jobs then count as lost."""


def run_demo(jobs: int = 60, *, as_json: bool = False, keep: bool = False, kills: bool = True) -> int:
    """Run `jobs` tickets of a support desk until all have ended.

    Returns the exit code: 0 if all completed, each effect once.
    """
    with tempfile.TemporaryDirectory(prefix="midwatch-demo-") as folder:
        directory = Path(folder)
        tickets = make_tickets(jobs, SEED)
        desk = open_desk(directory / "desk.sqlite", tickets, SEED)
        env = {
            "MIDWATCH_AGENTS": "midwatch.workers.demo.desk.agents",
            "MIDWATCH_DEMO_DB": str(directory / "desk.sqlite"),
            "MIDWATCH_DEMO_FLAKY": FLAKY,
            "MIDWATCH_DEMO_SEED": str(SEED),
        }
        brain = [
            "--rules",
            "midwatch.workers.demo.desk.brain:solve",
            "--chaos",
            CHAOS,
            "--seed",
            str(SEED),
            "--latency-ms",
            "60-240",
        ]
        screen = Screen()
        with Stage(directory, env, brain) as stage:
            screen.say("starting: an embedded Valkey, a model server with faults, three workers, Flower")
            stage.start_worker("model-1", "model,maintenance", "threads", 24)
            stage.start_worker("tools-1", "tools", "prefork", 2)
            stage.start_worker("tools-2", "tools", "prefork", 2)
            stage.start_flower(_free_port())
            screen.say(f"Flower: {stage.flower_url}")
            stage.await_workers()
            stage.fleet.watch()
            account, results = _run_tickets(stage, tickets, screen, kills)
            report = check(desk, tickets, results)
            account.lost = len(report.lost)
            account.duplicate_effects = len(report.duplicate_effects)
            account.not_completed = find_not_completed(results)
            screen.print_summary(account, report, stage.flower_url if keep else "")
            if as_json:
                print(json.dumps(asdict(account)), flush=True)
            if keep and not as_json:
                wait_for_interrupt()
        return 0 if is_success(account, report) else 1


def _run_tickets(
    stage: Stage, tickets: list[Ticket], screen: Screen, kills: bool
) -> tuple[Account, dict[str, JobResult | None]]:
    client = stage.client()
    started = time.monotonic()
    account = Account()
    handles: dict[str, JobHandle] = {}
    for number, ticket in enumerate(tickets):
        agent = ("desk-claude", "desk-gpt")[number % 2]
        handles[ticket.id] = client.enqueue(
            agent, ticket.input, session_id=ticket.id, idempotency_key=f"demo.{ticket.id}"
        )
    account.submitted = len(handles)
    killer = Killer(stage.workers, len(tickets)) if kills else None
    _watch(client, handles, account, screen, started, killer)
    account.seconds = round(time.monotonic() - started, 1)
    jobs = {job.job_id: job for job in client.jobs.list(limit=len(handles) + 10)}
    return account, {ticket: result_of(jobs[h.id]) if h.id in jobs else None for ticket, h in handles.items()}


def _watch(
    client: Client,
    handles: dict[str, JobHandle],
    account: Account,
    screen: Screen,
    started: float,
    killer: Killer | None,
) -> None:
    """Update the screen until every job has ended, or no step was committed for `STALLED_S`."""
    ended, progress, changed_at = 0, -1, time.monotonic()
    with screen.progress(len(handles)):
        while ended < len(handles) and time.monotonic() - changed_at < STALLED_S:
            jobs = client.jobs.list(limit=len(handles) + 10)
            counters = client.operations.counters()
            account.completed = sum(job.status is JobStatus.COMPLETED for job in jobs)
            account.dead_lettered = sum(job.status is JobStatus.DEAD_LETTERED for job in jobs)
            account.retries = counters.get("steps.retried", 0)
            account.failed_calls = sum(each.failed + each.throttled for each in client.gate.status())
            account.invalid_calls_caught = counters.get("calls.invalid", 0)
            ended = sum(job.status.ended for job in jobs)
            steps = counters.get("steps.model", 0) + counters.get("steps.tool", 0)
            if steps + ended != progress:
                progress, changed_at = steps + ended, time.monotonic()
            if killer is not None and ended < len(handles):
                account.worker_kills = killer.kill_if_due(steps)
            screen.update(account, jobs, time.monotonic() - started)
            time.sleep(0.2)


def find_not_completed(results: Mapping[str, JobResult | None]) -> list[dict[str, str]]:
    """Return one entry for each ticket whose job did not complete, with the reason."""
    return [
        {
            "ticket": ticket,
            "job_id": result.job_id if result else "",
            "status": result.status.value if result else "lost",
            "why": result.why if result else "the job's record is gone",
        }
        for ticket, result in results.items()
        if result is None or result.status is not JobStatus.COMPLETED
    ]


def is_success(account: Account, report: CheckReport) -> bool:
    """Did every job complete, with the right effects, each once?"""
    return report.ok and account.completed == account.submitted


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
