"""The behaviour of the downstream of `bench storm` over time: healthy, in trouble, and healthy again with a tight limit."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Protocol

from midwatch.workers.simulator.faults.faults import chance
from midwatch.workers.simulator.rate_limit import Bucket
from midwatch.workers.simulator.vendor_formats.vendor_format import RateState

HOLD_S = 60.0
"""Longest time that calls are held while more are expected."""


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    status: int
    retry_after_s: int | None = None
    rate: RateState | None = None
    """State of the limit, for the vendor's rate-limit headers."""


class Course(Protocol):
    """Decides the answer to every request. `at_s` is the time since the beginning."""

    async def answer(self, at_s: float, call: str) -> Answer:
        """Return the answer to a request."""
        ...

    def trouble(self) -> tuple[float, float]:
        """Return when the trouble began and when it ended."""
        ...


@dataclass
class Limit:
    """A rate limit as vendors enforce it: a bucket for one second, then 429 with a Retry-After in whole seconds."""

    per_s: float
    _bucket: Bucket = field(init=False)

    def __post_init__(self) -> None:
        self._bucket = Bucket.make_full(round(self.per_s * 60), max(1, round(self.per_s)), 0.0)

    def answer(self, at_s: float) -> Answer:
        """Return 200 or 429. A refused call does not use the limit."""
        wait_s = self._bucket.withdraw(at_s)
        return Answer(429 if wait_s else 200, math.ceil(wait_s) if wait_s else None, self._bucket.state())


@dataclass
class Trouble:
    """A downstream with a limit. From `begins_s` to `ends_s` the share `failing` of all calls gets 529."""

    limit: Limit
    begins_s: float
    ends_s: float
    failing: float = 1.0
    seed: int = 0
    _tries: dict[str, int] = field(default_factory=dict)

    async def answer(self, at_s: float, call: str) -> Answer:
        """See `Course`."""
        tries = self._tries[call] = self._tries.get(call, 0) + 1
        if self.begins_s <= at_s < self.ends_s and chance(self.seed, call, tries) < self.failing:
            return Answer(529)
        return self.limit.answer(at_s)

    def trouble(self) -> tuple[float, float]:
        """See `Course`."""
        return self.begins_s, self.ends_s


@dataclass
class Throttle:
    """Holds calls until there are `held` of them, then refuses all at once with a Retry-After.

    It also refuses calls that come before the Retry-After ends. ("Earlier retries will fail", says a vendor's documentation.)
    Afterwards it has a limit.
    """

    limit: Limit
    held: int
    retry_after_s: int = 20
    refused_at_s: float | None = None
    """When it refused the held calls."""
    _waiting: list[asyncio.Future[float]] = field(default_factory=list)

    async def answer(self, at_s: float, call: str) -> Answer:
        """See `Course`."""
        if self.refused_at_s is not None:
            left_s = self.refused_at_s + self.retry_after_s - at_s
            return Answer(429, math.ceil(left_s)) if left_s > 0 else self.limit.answer(at_s)
        loop = asyncio.get_running_loop()
        until: asyncio.Future[float] = loop.create_future()
        self._waiting.append(until)
        if len(self._waiting) == self.held:
            self._refuse(at_s)
        elif len(self._waiting) == 1:
            loop.call_later(HOLD_S, lambda: self._refuse(at_s + HOLD_S))
        await until
        return Answer(429, self.retry_after_s)

    def trouble(self) -> tuple[float, float]:
        """See `Course`."""
        began_s = self.refused_at_s or 0.0
        return began_s, began_s + self.retry_after_s

    def _refuse(self, at_s: float) -> None:
        if self.refused_at_s is None:
            self.refused_at_s = at_s
            for waiting in self._waiting:
                waiting.set_result(at_s)
