"""A provider in simulated time, with a token bucket, which answers 429 when it is empty, and an outage."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field

from midwatch.schemas.failure import FailureKind
from midwatch.workers.bench.storm_simulated.simulation import Simulation

CALL_S = 3.0
"""Median time of a successful call. Times are lognormal, like the latencies of real models."""
SPREAD = 0.5
LONGEST_S = 30.0
MEAN_CALL_S = CALL_S * math.exp(SPREAD**2 / 2)

REFUSED_S = 0.1
"""Time of an answer with 429."""


@dataclass(frozen=True)
class ProviderModel:
    """The behaviour of a provider."""

    limit_per_s: float
    """Calls per second. The bucket holds one second of calls."""
    outage_from_s: float = 30.0
    outage_until_s: float = 90.0
    share_failing: float = 1.0
    """Share of calls that fail during the outage."""
    failing: FailureKind = FailureKind.OVERLOADED
    fails_after_s: float = 0.3
    refusal_cost: float = 0.0
    """Tokens that a refused call costs (OpenAI: "unsuccessful requests contribute to your per-minute limit")."""
    warm_s: float = 0.0
    """Time after the outage until the full limit is reached."""
    warm_from: float = 1.0
    """Share of the limit directly after the outage."""

    def capacity_per_s(self, now_s: float) -> float:
        """Return the limit at this time, as if there were no outage."""
        since_s = now_s - self.outage_until_s
        if not 0 <= since_s < self.warm_s:
            return self.limit_per_s
        return self.limit_per_s * (self.warm_from + (1 - self.warm_from) * since_s / self.warm_s)


@dataclass(frozen=True)
class Answer:
    """The answer to one call."""

    latency_s: float
    failure: FailureKind | None = None
    retry_after_s: int | None = None


@dataclass
class Provider:
    """A provider that answers calls, and counts the calls that reached it."""

    model: ProviderModel
    simulation: Simulation
    rng: random.Random
    by_second: Counter[int] = field(default_factory=Counter)
    """Second -> calls that reached it, with refused and failed calls."""
    answers: Counter[FailureKind | None] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._tokens = self.model.limit_per_s
        self._since_s = 0.0

    def call(self) -> Answer:
        """Answer one call now."""
        self.by_second[int(self.simulation.now_s)] += 1
        answer = self._try_fail() or self._try_refuse()
        if answer is None:
            self._tokens -= 1
            answer = Answer(min(LONGEST_S, self.rng.lognormvariate(math.log(CALL_S), SPREAD)))
        self.answers[answer.failure] += 1
        return answer

    def _try_fail(self) -> Answer | None:
        model, now_s = self.model, self.simulation.now_s
        if not model.outage_from_s <= now_s < model.outage_until_s:
            return None
        if model.share_failing < 1:
            return Answer(model.fails_after_s, model.failing) if self.rng.random() < model.share_failing else None
        self._tokens, self._since_s = model.limit_per_s, now_s  # no call is served, so the bucket is full afterwards
        return Answer(model.fails_after_s, model.failing)

    def _try_refuse(self) -> Answer | None:
        model, now_s = self.model, self.simulation.now_s
        capacity_per_s = model.capacity_per_s(now_s)
        self._tokens = min(capacity_per_s, self._tokens + (now_s - self._since_s) * capacity_per_s)
        self._since_s = now_s
        if self._tokens >= 1:
            return None
        self._tokens -= model.refusal_cost
        retry_after_s = max(1, math.ceil((1 - self._tokens) / capacity_per_s))
        return Answer(REFUSED_S, FailureKind.RATE_LIMITED, retry_after_s)
