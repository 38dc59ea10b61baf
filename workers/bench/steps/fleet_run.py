"""Measure one run of the product in `bench steps`, with the same functions as for the bare loop."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.errors import MidwatchError
from midwatch.orchestration.keyspace import PARTITIONS
from midwatch.schemas.step import StepKind
from midwatch.workers.bench.measure import cpu_s, kept_bytes, percentile, redis_commands
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.local.process import Member
from midwatch.workers.settings import Settings

WARM_JOBS, WARM_STEPS = 16, 10
PREFIX = "bench"


@dataclass(frozen=True)
class FleetResult:
    """The figures of one run. The fields mean the same as in `BaselineResult`."""

    steps_per_s: float
    cpu_ms_per_step: float
    server_cpu_ms_per_step: float
    p50_ms: float
    p99_ms: float
    redis_commands_per_step: float
    round_trips_per_step: float
    """Round trips of claim, admission, commit with settlement, enqueues and sweeps. The broker's BRPOP is not counted."""
    kb_per_step: float
    growth: float
    """CPU of a late step divided by the CPU of an early step. Late is 85 to 97 % of the work, early is 3 to 15 %. All jobs
    advance together, so in jobs of 200 steps this compares about the 190th step with the 20th."""


@dataclass(frozen=True)
class FleetRun:
    """One run on a server without other work."""

    server: EmbeddedServer
    jobs: int = 200
    steps_per_job: int = 10
    tool: str = "inline"
    pool: str = "solo"
    processes: int = 2
    concurrency: int = 1
    timeout_s: float = 300.0

    def run(self) -> FleetResult:
        """Start the workers, warm them up, measure, and stop them.

        Raises:
            MidwatchError: a worker died, or not all jobs ended within `timeout_s`.
        """
        env = {
            "MIDWATCH_REDIS_URL": self.server.url,
            "MIDWATCH_PREFIX": PREFIX,
            "MIDWATCH_AGENTS": "midwatch.workers.bench.steps.agents",
            "MIDWATCH_EVENTS": "false",
            "MIDWATCH_LOG_LEVEL": "WARNING",
        }
        client = make_client(Settings(redis_url=self.server.url, prefix=PREFIX))
        argv = worker_argv("model,tools,maintenance", self.pool, self.concurrency)
        with (
            tempfile.TemporaryDirectory() as logs,
            redis.Redis.from_url(self.server.url, socket_timeout=10, retry=Retry(NoBackoff(), 0)) as reading,
            Fleet(env, Path(logs)) as fleet,
        ):
            workers = [fleet.start(f"worker-{n}", argv) for n in range(self.processes)]
            warm = self._enqueue(client, WARM_JOBS, WARM_STEPS)
            wait_ready(workers[0], lambda: self._completed(reading) >= warm, timeout_s=90)
            reading.flushdb()
            before = self._read(reading, workers)
            started_s = time.monotonic()
            self._enqueue(client, self.jobs, self.steps_per_job)
            samples = self._await_jobs(reading, workers)
            took_s = time.monotonic() - started_s
            after = self._read(reading, workers)
            # Round trips of the measurement: two per sample, one that ended the loop, and two of the readings.
            looks = 2 * len(samples) + 3
            grown = growth(samples, self.jobs * self.steps_per_job)
            result = self._make_result(client, reading, took_s, before, after, grown, looks)
            reading.flushdb()
        return result

    def _enqueue(self, client: Client, jobs: int, steps: int) -> int:
        for _ in range(jobs):
            client.enqueue(f"bench-{self.tool}", f"steps={steps}")
        return jobs

    def _completed(self, reading: redis.Redis, counter: str = "jobs.completed") -> int:
        pipe = reading.pipeline(transaction=False)
        for p in range(PARTITIONS):
            pipe.hget(f"{PREFIX}:{{{PREFIX}{p:02d}}}:counters", counter)
        return sum(int(value or 0) for value in pipe.execute())

    def _await_jobs(self, reading: redis.Redis, workers: list[Member]) -> list[tuple[int, float]]:
        """Wait until all jobs have ended. Returns samples of (committed model turns, CPU seconds of the workers)."""
        give_up_s = time.monotonic() + self.timeout_s
        samples: list[tuple[int, float]] = []
        while self._completed(reading) < self.jobs:
            samples.append((self._completed(reading, "steps.model"), sum(cpu_s(worker.pid) for worker in workers)))
            dead = [worker for worker in workers if not worker.alive]
            if dead or time.monotonic() > give_up_s:
                log_tail = (dead or workers)[0].log_tail
                raise MidwatchError(f"{self._completed(reading)} of {self.jobs} jobs ended:\n{log_tail}")
            time.sleep(0.05)
        return samples

    def _read(self, reading: redis.Redis, workers: list[Member]) -> tuple[float, float, int, int]:
        """Read the counters: CPU of workers, CPU of the server, commands, round trips.

        A round trip is one read of a socket by the server. Reads for the broker's BRPOP are left out.
        """
        rows = reading.info("everything")
        trips = int(rows["total_reads_processed"]) - int(rows.get("cmdstat_brpop", {}).get("calls", 0))
        worker_cpu = sum(cpu_s(worker.pid) for worker in workers)
        return worker_cpu, cpu_s(self.server.pid), redis_commands(reading, but=("info", "hget")), trips

    def _make_result(
        self,
        client: Client,
        reading: redis.Redis,
        took_s: float,
        before: tuple[float, float, int, int],
        after: tuple[float, float, int, int],
        grown: float,
        looks: int,
    ) -> FleetResult:
        steps = self.jobs * self.steps_per_job
        waits: list[float] = []
        for job in client.jobs.list(limit=self.jobs):
            starts = [r.started_ms for r in client.jobs.trace(job.job_id) if r.kind is StepKind.MODEL]
            waits += [later - earlier for earlier, later in pairwise(starts)]
        return FleetResult(
            steps_per_s=steps / took_s,
            cpu_ms_per_step=(after[0] - before[0]) / steps * 1_000,
            server_cpu_ms_per_step=(after[1] - before[1]) / steps * 1_000,
            p50_ms=percentile(waits, 0.50),
            p99_ms=percentile(waits, 0.99),
            redis_commands_per_step=(after[2] - before[2]) / steps,
            round_trips_per_step=(after[3] - before[3] - looks) / steps,
            kb_per_step=kept_bytes(reading, f"{PREFIX}:*") / steps / 1_024,
            growth=grown,
        )


def growth(samples: list[tuple[int, float]], steps: int) -> float:
    """Return the CPU of a late step divided by that of an early step. 1.0 if the run was too short."""

    def slope(low: float, high: float) -> float:
        inside = [(n, cpu) for n, cpu in samples if low * steps <= n <= high * steps]
        return (inside[-1][1] - inside[0][1]) / max(1, inside[-1][0] - inside[0][0]) if len(inside) > 1 else 0.0

    early, late = slope(0.03, 0.15), slope(0.85, 0.97)
    return late / early if early > 0 and late > 0 else 1.0
