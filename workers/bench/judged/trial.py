"""Run one fleet against the judge. Every contestant gets the same work, and runs until all of it has ended."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import redis
from celery import Celery

from midwatch.orchestration.errors import MidwatchError
from midwatch.workers.bench.judged import agents, naive
from midwatch.workers.bench.judged.llmock_run import PATHS, Judge, Judgement
from midwatch.workers.bench.steps.fleet_run import PREFIX
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.settings import Settings

PROCESSES, THREADS = 2, 8


@dataclass(frozen=True)
class Work:
    """Functions that enqueue a fleet's jobs and count the ended ones."""

    enqueue: Callable[[], None]
    count_ended: Callable[[], tuple[int, int]]
    """Returns how many jobs have ended, and how many of them without an answer."""
    close: Callable[[], None]
    """Closes the connections of the two functions."""


@dataclass(frozen=True)
class Contestant:
    """A fleet, and its settings for the limit."""

    name: str
    limits: Mapping[str, float] | None = None
    """Limits for `gate set` besides the rate. None: no limit is set, and the fleet learns from answers."""
    spent: bool = False
    """Is the bucket emptied before the run? Then the limit applies from the first call on."""
    task: str = ""
    """A task of `midwatch.workers.bench.judged.naive`. Empty for a Midwatch fleet."""
    most_attempts: int = 1 + agents.anthropic.retry_config.max_retries
    """Most attempts at one call that its configuration allows."""


@dataclass(frozen=True)
class Trial:
    """A judge, a server and workers for one contestant."""

    contestant: Contestant
    rpm: int
    seconds: int
    latency_ms: int = 200

    @property
    def jobs(self) -> int:
        """Jobs per vendor: as many as its limit allows in `seconds`."""
        saved_up = 0 if self.contestant.spent else self.rpm
        return saved_up + self.rpm * self.seconds // 60

    def run(self) -> tuple[Judgement, int]:
        """Start all processes, run the work, and stop them. Returns the judgement, and the number of jobs without an answer.

        Raises:
            ConfigError: llmock is not installed.
            MidwatchError: a process died, or the work did not end in time.

        """
        with (
            tempfile.TemporaryDirectory(prefix="midwatch-judged-") as folder,
            EmbeddedServer(append_only="everysec") as server,
            Fleet({}, Path(folder)) as fleet,
            closing(Judge(fleet, self.rpm, self.latency_ms)) as judge,
        ):
            start = self._start_naive if self.contestant.task else self._start_midwatch
            with closing(start(fleet, server, judge)) as work:
                self._enqueue(fleet, judge, work)
                lost = self._await_jobs(fleet, work)
            return judge.judgement(), lost

    def _enqueue(self, fleet: Fleet, judge: Judge, work: Work) -> None:
        workers = fleet.members[1:]
        for worker in workers:
            wait_ready(worker, "ready", timeout_s=90)
        if not self.contestant.spent:
            work.enqueue()
            return
        for worker in workers:  # no worker may make a call before the bucket is empty
            worker.freeze()
        work.enqueue()
        judge.spend()
        for worker in workers:
            worker.thaw()

    def _start_midwatch(self, fleet: Fleet, server: EmbeddedServer, judge: Judge) -> Work:
        env = {
            "MIDWATCH_REDIS_URL": server.url,
            "MIDWATCH_PREFIX": PREFIX,
            "MIDWATCH_AGENTS": "midwatch.workers.bench.judged.agents",
            "MIDWATCH_EVENTS": "false",
            **judge.environment(),
        }
        client = make_client(Settings(redis_url=server.url, prefix=PREFIX))
        if self.contestant.limits is not None:
            for agent in agents.BY_VENDOR.values():
                client.gate.set(str(agent.model), rpm=self.rpm, **self.contestant.limits)
        for n in range(PROCESSES):
            fleet.start(f"worker-{n}", worker_argv("model,tools,maintenance", "threads", THREADS, f"judged-{n}"), env)

        def enqueue() -> None:
            for number in range(self.jobs):
                for vendor, agent in agents.BY_VENDOR.items():
                    client.enqueue(agent.name, _question(vendor, number))

        def count_ended() -> tuple[int, int]:
            counters = client.operations.counters()
            answered, lost = counters.get("jobs.completed", 0), counters.get("jobs.dead_lettered", 0)
            return answered + lost, lost

        return Work(enqueue, count_ended, client.operations.client.close)

    def _start_naive(self, fleet: Fleet, server: EmbeddedServer, judge: Judge) -> Work:
        env = {naive.URL_VARIABLE: server.url, **judge.environment()}
        argv = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "midwatch.workers.bench.judged.naive",
            "worker",
            "--pool",
            "threads",
        ]
        argv += ["--concurrency", str(THREADS), "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
        for n in range(PROCESSES):
            fleet.start(f"worker-{n}", [*argv, "--hostname", f"naive-{n}@%h"], env)
        store = redis.Redis.from_url(server.url, socket_timeout=10)

        def enqueue() -> None:
            with Celery("judged", broker=server.url, set_as_current=False) as producer:
                for number in range(self.jobs):
                    for vendor in PATHS:
                        arguments = (vendor, _question(vendor, number))
                        producer.send_task(self.contestant.task, arguments, ignore_result=True)

        def count_ended() -> tuple[int, int]:
            answered, lost = int(store.get(naive.ANSWERED) or 0), int(store.get(naive.LOST) or 0)
            return answered + lost, lost

        return Work(enqueue, count_ended, store.close)

    def _await_jobs(self, fleet: Fleet, work: Work) -> int:
        wanted = len(PATHS) * self.jobs
        give_up_s = time.monotonic() + 3 * self.seconds + 60
        while time.monotonic() < give_up_s:
            count, lost = work.count_ended()
            if count >= wanted:
                return lost
            for member in fleet.members:
                if not member.alive:
                    raise MidwatchError(
                        f"{member.name} ended with {member.exit_code} during the run:\n{member.log_tail}"
                    )
            time.sleep(0.2)
        logs = "\n".join(member.log_tail for member in fleet.members)
        raise MidwatchError(f"{self.contestant.name}: {count} of {wanted} jobs ended in time; the logs end:\n{logs}")


def _question(vendor: str, number: int) -> str:
    """Return a question. All questions differ, because the judge recognises a call by its body."""
    return f"Question {number} for {vendor}: where is my parcel?"
