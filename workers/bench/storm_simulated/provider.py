"""A provider in virtual time: a token bucket that answers 429 when it is empty, and an outage of one of several kinds."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field

from midwatch.schemas.failure import FailureKind
from midwatch.workers.bench.storm_simulated.simulation import Simulation

CALL_S = 3.0
"""Median time of a successful call; lognormal around it, as latencies of models are."""
SPREAD = 0.5
LONGEST_S = 30.0
MEAN_CALL_S = CALL_S * math.exp(SPREAD**2 / 2)

REFUSED_S = 0.1
"""Time to answer 429."""


@dataclass(frozen=True)
class ProviderModel:
    """How a provider behaves."""

    limit_per_s: float
    """Calls it takes; its bucket holds one second of them."""
    outage_from_s: float = 30.0
    outage_until_s: float = 90.0
    share_failing: float = 1.0
    """Of the calls that come during the outage."""
    failing: FailureKind = FailureKind.OVERLOADED
    fails_after_s: float = 0.3
    refusal_cost: float = 0.0
    """Tokens that a refused call costs (OpenAI: "unsuccessful requests contribute to your per-minute limit")."""
    warm_s: float = 0.0
    """How long after the outage it takes to come back to its limit ..."""
    warm_from: float = 1.0
    """... from this share of it."""

    def capacity_per_s(self, now_s: float) -> float:
        """What it bears at a moment, outage apart."""
        since_s = now_s - self.outage_until_s
        if not 0 <= since_s < self.warm_s:
            return self.limit_per_s
        return self.limit_per_s * (self.warm_from + (1 - self.warm_from) * since_s / self.warm_s)


@dataclass(frozen=True)
class Answer:
    """What came of one call."""

    latency_s: float
    failure: FailureKind | None = None
    retry_after_s: int | None = None


@dataclass
class Provider:
    """One provider at work, and its own count of what reached it."""

    model: ProviderModel
    simulation: Simulation
    rng: random.Random
    by_second: Counter[int] = field(default_factory=Counter)
    """Calls that reached it, refused ones and failures included."""
    answers: Counter[FailureKind | None] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._tokens = self.model.limit_per_s
        self._since_s = 0.0

    def call(self) -> Answer:
        """One call, now."""
        self.by_second[int(self.simulation.now_s)] += 1
        answer = self._fails() or self._refuses()
        if answer is None:
            self._tokens -= 1
            answer = Answer(min(LONGEST_S, self.rng.lognormvariate(math.log(CALL_S), SPREAD)))
        self.answers[answer.failure] += 1
        return answer

    def _fails(self) -> Answer | None:
        model, now_s = self.model, self.simulation.now_s
        if not model.outage_from_s <= now_s < model.outage_until_s:
            return None
        if model.share_failing < 1:
            return Answer(model.fails_after_s, model.failing) if self.rng.random() < model.share_failing else None
        self._tokens, self._since_s = model.limit_per_s, now_s  # who serves nobody saves its bucket up
        return Answer(model.fails_after_s, model.failing)

    def _refuses(self) -> Answer | None:
        model, now_s = self.model, self.simulation.now_s
        capacity_per_s = model.capacity_per_s(now_s)
        self._tokens = min(capacity_per_s, self._tokens + (now_s - self._since_s) * capacity_per_s)
        self._since_s = now_s
        if self._tokens >= 1:
            return None
        self._tokens -= model.refusal_cost
        retry_after_s = max(1, math.ceil((1 - self._tokens) / capacity_per_s))
        return Answer(REFUSED_S, FailureKind.RATE_LIMITED, retry_after_s)
