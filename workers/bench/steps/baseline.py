"""Measure the bare Celery loop: the baseline for all figures of `bench steps`.

The time runs from the first enqueue to the end of the last job. Workers are warm and consume while jobs are enqueued. So the
producer's work is included, as in the measurement of the product.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import redis
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from midwatch.orchestration.errors import ConfigError, MidwatchError
from midwatch.workers.bench.measure import cpu_s, kept_bytes, percentile, redis_commands
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready
from midwatch.workers.local.process import Member

WARM_JOBS = 8
WARM_STEPS = 5
DONE = "bare:done"
KEYS = "bare:*"

MEASURING = ("info", "blpop")
"""Commands that only the measurement uses. kombu reads its queues with BRPOP and not with BLPOP."""


@dataclass(frozen=True)
class BaselineResult:
    """The figures of one run. Compare them only with a run of the product from the same session."""

    jobs: int
    steps_per_job: int
    read_history: bool
    steps_per_s: float
    cpu_ms_per_step: float
    """CPU of the worker's main process and pool."""
    server_cpu_ms_per_step: float
    p50_ms: float
    """Time between two steps of one job, from its history. With many jobs it is mostly waiting for a free slot."""
    p99_ms: float
    redis_commands_per_step: float
    kb_per_step: float
    """Memory in the server for each step after the job's end."""


@dataclass(frozen=True)
class _Reading:
    """The counters at one moment."""

    worker_cpu_s: float
    server_cpu_s: float
    commands: int


@dataclass(frozen=True)
class BaselineRun:
    """One run of the bare loop on a server without other work.

    `jobs=1` measures the latency of a single job. Many jobs measure throughput.
    """

    server: EmbeddedServer
    jobs: int = 200
    steps_per_job: int = 10
    read_history: bool = False
    concurrency: int = 2
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.steps_per_job < 2:
            raise ConfigError(
                f"a run needs at least one job of two steps, got jobs={self.jobs}, steps_per_job={self.steps_per_job}: "
                "the time of a step is measured between two steps"
            )

    def run(self) -> BaselineResult:
        """Start a worker, warm it up, measure, and stop it. The loop's keys are deleted before and afterwards.

        Raises:
            MidwatchError: the worker died, or not all jobs ended within `timeout_s`.

        """
        env = {"BARE_REDIS_URL": self.server.url, "BARE_READ_HISTORY": str(int(self.read_history))}
        with (
            tempfile.TemporaryDirectory() as logs,
            redis.Redis.from_url(self.server.url, socket_timeout=10, retry=Retry(NoBackoff(), 0)) as client,
            Celery("bench", broker=self.server.url, set_as_current=False) as producer,
            Fleet(env, Path(logs)) as fleet,
        ):
            _delete_keys(client)
            worker = fleet.start("bare", self._command())
            self._enqueue(producer, WARM_JOBS, WARM_STEPS)
            wait_ready(worker, lambda: client.llen(DONE) == WARM_JOBS, timeout_s=60)
            _delete_keys(client)
            before = self._read(client, worker)
            started_s = time.monotonic()
            self._enqueue(producer, self.jobs, self.steps_per_job)
            self._await_jobs(client, worker)
            took_s = time.monotonic() - started_s
            result = self._make_result(client, took_s, before, self._read(client, worker))
            _delete_keys(client)
        return result

    def _command(self) -> Sequence[str]:
        pool = ["--pool", "prefork", "--concurrency", str(self.concurrency)]
        quiet = ["--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
        return [sys.executable, "-m", "celery", "-A", "midwatch.workers.bench.steps.bare_loop", "worker", *pool, *quiet]

    def _enqueue(self, producer: Celery, jobs: int, steps: int) -> None:
        for number in range(jobs):
            producer.send_task("bare.step", (f"j{number}", steps), ignore_result=True)

    def _await_jobs(self, client: redis.Redis, worker: Member) -> None:
        deadline_s = time.monotonic() + self.timeout_s
        ended = 0
        while ended < self.jobs:
            if client.blpop([DONE], timeout=1) is not None:
                ended += 1
            elif not worker.alive:
                raise MidwatchError(f"the bare worker ended with {worker.exit_code} during the run:\n{worker.log_tail}")
            elif time.monotonic() > deadline_s:
                raise MidwatchError(
                    f"{ended} of {self.jobs} jobs ended within {self.timeout_s:g} s:\n{worker.log_tail}"
                )

    def _read(self, client: redis.Redis, worker: Member) -> _Reading:
        return _Reading(cpu_s(worker.pid), cpu_s(self.server.pid), redis_commands(client, but=MEASURING))

    def _make_result(self, client: redis.Redis, took_s: float, before: _Reading, after: _Reading) -> BaselineResult:
        steps = self.jobs * self.steps_per_job
        waits_ms = [wait for number in range(self.jobs) for wait in _waits_ms(client, f"bare:j{number}:history")]
        return BaselineResult(
            jobs=self.jobs,
            steps_per_job=self.steps_per_job,
            read_history=self.read_history,
            steps_per_s=steps / took_s,
            cpu_ms_per_step=(after.worker_cpu_s - before.worker_cpu_s) / steps * 1_000,
            server_cpu_ms_per_step=(after.server_cpu_s - before.server_cpu_s) / steps * 1_000,
            p50_ms=percentile(waits_ms, 0.50),
            p99_ms=percentile(waits_ms, 0.99),
            redis_commands_per_step=(after.commands - before.commands) / steps,
            kb_per_step=kept_bytes(client, KEYS) / steps / 1_024,
        )


def _waits_ms(client: redis.Redis, history: str) -> list[float]:
    """Return the times between consecutive steps of one job. The history has the timestamps, so no extra command is run."""
    messages = [json.loads(row) for row in client.lrange(history, 0, -1)]
    stamps = [message["at_s"] for message in messages if message["role"] == "assistant"]
    return [(later - earlier) * 1_000 for earlier, later in pairwise(stamps)]


def _delete_keys(client: redis.Redis) -> None:
    for name in list(client.scan_iter(match=KEYS, count=1_000)):
        client.delete(name)
