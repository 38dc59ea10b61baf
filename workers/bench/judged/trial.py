"""One fleet before the judge: the same work for each contestant, until all of it has ended."""

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
    """How a fleet is given its jobs, and how it is told that they have ended."""

    give: Callable[[], None]
    ended: Callable[[], tuple[int, int]]
    """How many jobs have ended, and how many of them without an answer."""
    close: Callable[[], None]
    """What asking takes."""


@dataclass(frozen=True)
class Contestant:
    """A fleet, and what it is told of the limit."""

    name: str
    limits: Mapping[str, float] | None = None
    """What `gate set` is given besides the rate. None: nothing is set, all is learned from answers."""
    spent: bool = False
    """Others have used up the minute that a bucket holds: the limit binds from the first call on."""
    task: str = ""
    """Of `midwatch.workers.bench.judged.naive`; empty for a fleet of our own."""
    most_attempts: int = 1 + agents.anthropic.retry_config.max_retries
    """At one call, as it is configured."""


@dataclass(frozen=True)
class Trial:
    """A judge, a server and workers, for one contestant."""

    contestant: Contestant
    rpm: int
    seconds: int
    latency_ms: int = 200

    @property
    def jobs(self) -> int:
        """For each vendor, as many as its limit lets through in `seconds`."""
        saved_up = 0 if self.contestant.spent else self.rpm
        return saved_up + self.rpm * self.seconds // 60

    def run(self) -> tuple[Judgement, int]:
        """Start it all, give it the work, stop it. Returns what the judge says, and how many jobs got no answer.

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
            with closing((self._naive if self.contestant.task else self._midwatch)(fleet, server, judge)) as work:
                self._give(fleet, judge, work)
                lost = self._await(fleet, work)
            return judge.judgement(), lost

    def _give(self, fleet: Fleet, judge: Judge, work: Work) -> None:
        workers = fleet.members[1:]
        for worker in workers:
            wait_ready(worker, "ready", timeout_s=90)
        if not self.contestant.spent:
            work.give()
            return
        for worker in workers:  # nobody asks before the minute is gone
            worker.freeze()
        work.give()
        judge.spend()
        for worker in workers:
            worker.thaw()

    def _midwatch(self, fleet: Fleet, server: EmbeddedServer, judge: Judge) -> Work:
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

        def give() -> None:
            for number in range(self.jobs):
                for vendor, agent in agents.BY_VENDOR.items():
                    client.enqueue(agent.name, _question(vendor, number))

        def ended() -> tuple[int, int]:
            counters = client.operations.counters()
            answered, lost = counters.get("jobs.completed", 0), counters.get("jobs.dead_lettered", 0)
            return answered + lost, lost

        return Work(give, ended, client.operations.client.close)

    def _naive(self, fleet: Fleet, server: EmbeddedServer, judge: Judge) -> Work:
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

        def give() -> None:
            with Celery("judged", broker=server.url, set_as_current=False) as producer:
                for number in range(self.jobs):
                    for vendor in PATHS:
                        arguments = (vendor, _question(vendor, number))
                        producer.send_task(self.contestant.task, arguments, ignore_result=True)

        def ended() -> tuple[int, int]:
            answered, lost = int(store.get(naive.ANSWERED) or 0), int(store.get(naive.LOST) or 0)
            return answered + lost, lost

        return Work(give, ended, store.close)

    def _await(self, fleet: Fleet, work: Work) -> int:
        wanted = len(PATHS) * self.jobs
        give_up = time.monotonic() + 3 * self.seconds + 60
        while time.monotonic() < give_up:
            count, lost = work.ended()
            if count >= wanted:
                return lost
            for member in fleet.members:
                if not member.alive:
                    raise MidwatchError(f"{member.name} ended with {member.exit_code} in mid-run:\n{member.log_tail}")
            time.sleep(0.2)
        said = "\n".join(member.log_tail for member in fleet.members)
        raise MidwatchError(f"{self.contestant.name}: {count} of {wanted} jobs ended in time; the logs end:\n{said}")


def _question(vendor: str, number: int) -> str:
    """No two are alike: the judge knows a call by its body."""
    return f"Question {number} for {vendor}: where is my parcel?"
