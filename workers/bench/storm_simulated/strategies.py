"""Retry strategies without coordination: every call retries on its own schedule, with the waits of well-known libraries."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from midwatch.schemas.failure import FailureKind
from midwatch.workers.bench.storm_simulated.figures import Path, Progress
from midwatch.workers.bench.storm_simulated.provider import Answer, Provider
from midwatch.workers.bench.storm_simulated.scenarios import Load
from midwatch.workers.bench.storm_simulated.simulation import Process, Simulation, Slots

Backoff = Callable[[random.Random, int, Answer], float]
"""Seconds before retry number n + 1."""

CAP_S = 60.0
UNLIMITED = 1_000_000
SDK_BASE_S, SDK_CAP_S, SDK_JITTER = 0.5, 8.0, 0.25
"""Waits of the vendors' SDKs: `0.5 * 2**n`, at most 8 s, a quarter of it jitter. A Retry-After is waited for in the worker."""

AWS_TOKENS, AWS_COST, AWS_THROTTLE_COST = 500, 14, 5
"""The retry quota of each process in the AWS SDKs' standard mode of 2026."""


def _immediate(rng: random.Random, n: int, answer: Answer) -> float:
    return 0.0


def _exponential(rng: random.Random, n: int, answer: Answer) -> float:
    return min(CAP_S, 2.0 ** min(n, 10))


def _full_jitter(rng: random.Random, n: int, answer: Answer) -> float:
    return rng.uniform(0, _exponential(rng, n, answer))


def _celery_defaults(rng: random.Random, n: int, answer: Answer) -> float:
    return 180.0  # default_retry_delay, without jitter


def _celery_backoff(rng: random.Random, n: int, answer: Answer) -> float:
    return rng.randrange(min(600, 2 ** min(n, 10)) + 1)  # whole seconds: half of the first retries wait 0 s


def _aws(rng: random.Random, n: int, answer: Answer) -> float:
    base_s = 1.0 if answer.failure is FailureKind.RATE_LIMITED else 0.05
    return rng.uniform(0, min(20.0, base_s * 2 ** min(n, 10)))


@dataclass(frozen=True)
class Strategy:
    """How a call retries without coordination."""

    name: str
    about: str
    backoff: Backoff
    retries: int
    sdk_retries: int = 0
    """Retries by the SDK inside the task. The worker's slot stays occupied during their waits."""
    quota: int = 0
    """Retry quota of each process. 0: no quota."""
    nested: bool = False
    """Is a task retried with all its children if a child failed?"""


_CELERY = "Celery retry_backoff and retry_jitter on top of the SDK's two retries"

_ALL = (
    Strategy("immediate-3", "three retries, at once", _immediate, 3),
    Strategy("immediate-3-nested", "three retries, at once, at every level", _immediate, 3, nested=True),
    Strategy("exponential-3", "three retries, 1, 2, 4 s", _exponential, 3),
    Strategy("exponential-6", "six retries, 1 to 32 s", _exponential, 6),
    Strategy("exponential-6-nested", "six retries, 1 to 32 s, at every level", _exponential, 6, nested=True),
    Strategy("exponential-unlimited", "until it works, 1 to 60 s", _exponential, UNLIMITED),
    Strategy("full-jitter-3", "three retries, up to 1, 2, 4 s", _full_jitter, 3),
    Strategy("full-jitter-6", "six retries, up to 1 to 32 s", _full_jitter, 6),
    Strategy("full-jitter-unlimited", "until it works, up to 1 to 60 s", _full_jitter, UNLIMITED),
    Strategy("celery-autoretry", "Celery autoretry_for with its defaults: three retries, 180 s", _celery_defaults, 3),
    Strategy("celery-backoff", f"{_CELERY}, three times", _celery_backoff, 3, sdk_retries=2),
    Strategy("celery-backoff-unlimited", f"{_CELERY}, until it works", _celery_backoff, UNLIMITED, sdk_retries=2),
    Strategy("aws-standard", "the AWS SDKs' standard mode of 2026", _aws, 2, quota=AWS_TOKENS),
)

STRATEGIES = {strategy.name: strategy for strategy in _ALL}


@dataclass
class NaiveFleet:
    """Workers whose calls are not coordinated."""

    strategy: Strategy
    load: Load
    simulation: Simulation
    provider: Provider
    slots: Slots
    progress: Progress
    rng: random.Random
    _quota: dict[int, int] = field(default_factory=lambda: defaultdict(lambda: AWS_TOKENS))
    """Process -> the rest of its retry quota."""

    def run_subtree(self, path: Path) -> Process[bool]:
        """Run a call and the calls below it. Returns False if one of them failed permanently."""
        strategy = self.strategy
        for tried in range(strategy.retries + 1):
            answer, process = yield from self._attempt(path)
            if answer.failure is None:
                self._earn(process, retried=tried > 0)
                succeeded = yield from self._run_children(path)
                if succeeded or not strategy.nested:
                    return succeeded
            if tried == strategy.retries or not self._may_retry(process, answer):
                return False
            yield strategy.backoff(self.rng, tried, answer)
        return False

    def _run_children(self, path: Path) -> Process[bool]:
        if len(path) > self.load.depth:
            return True
        children = [self.run_subtree((*path, child)) for child in range(self.load.children)]
        return (yield from self.simulation.run_together(children))

    def _attempt(self, path: Path) -> Process[tuple[Answer, int]]:
        """Run one task on one worker: the call, and the retries of the SDK."""
        yield self.slots.take
        process = self.rng.randrange(self.load.slots // self.load.slots_per_process)
        answer = self.provider.call()
        yield answer.latency_s
        for tried in range(self.strategy.sdk_retries):
            if answer.failure is None:
                break
            backoff_s = min(SDK_CAP_S, SDK_BASE_S * 2**tried) * (1 - SDK_JITTER * self.rng.random())
            yield float(answer.retry_after_s or backoff_s)
            answer = self.provider.call()
            yield answer.latency_s
        self.slots.give_back()
        if answer.failure is None:
            self.progress.count_success(path, self.simulation.now_s)
        return answer, process

    def _may_retry(self, process: int, answer: Answer) -> bool:
        if not self.strategy.quota:
            return True
        cost = AWS_THROTTLE_COST if answer.failure is FailureKind.RATE_LIMITED else AWS_COST
        if self._quota[process] < cost:
            return False
        self._quota[process] -= cost
        return True

    def _earn(self, process: int, *, retried: bool) -> None:
        if self.strategy.quota:
            self._quota[process] = min(self.strategy.quota, self._quota[process] + (AWS_COST if retried else 1))
