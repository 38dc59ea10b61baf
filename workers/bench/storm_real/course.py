"""What the downstream of `bench storm` does when: well, in trouble, and back with a tight limit."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Protocol

from midwatch.workers.simulator.faults.faults import chance
from midwatch.workers.simulator.rate_limit import Bucket
from midwatch.workers.simulator.vendor_formats.vendor_format import RateState

HOLD_S = 60.0
"""The longest that calls are held for more to come."""


@dataclass(frozen=True)
class Answer:
    """What becomes of one request."""

    status: int
    retry_after_s: int | None = None
    rate: RateState | None = None
    """For the headers of a vendor that tells its limit's state."""


class Course(Protocol):
    """Decides about every request; `at_s` is the time since the beginning."""

    async def answer(self, at_s: float, call: str) -> Answer:
        """What becomes of it."""
        ...

    def trouble(self) -> tuple[float, float]:
        """When it began and when it was over."""
        ...


@dataclass
class Limit:
    """A bucket that holds one second of the limit, as vendors enforce it; beyond it 429 with a Retry-After in whole seconds."""

    per_s: float
    _bucket: Bucket = field(init=False)

    def __post_init__(self) -> None:
        self._bucket = Bucket.make_full(round(self.per_s * 60), max(1, round(self.per_s)), 0.0)

    def answer(self, at_s: float) -> Answer:
        """200 or 429. A refused call costs nothing of the limit."""
        wait_s = self._bucket.withdraw(at_s)
        return Answer(429 if wait_s else 200, math.ceil(wait_s) if wait_s else None, self._bucket.state())


@dataclass
class Trouble:
    """Well with its limit; from `begins_s` to `ends_s` the share `failing` of all calls gets 529; then well again."""

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
    """Holds calls until `held` of them are there, then refuses them all at once, and all that come before Retry-After is over.

    "Earlier retries will fail", as a vendor's documentation has it. From then on there is a limit.
    """

    limit: Limit
    held: int
    retry_after_s: int = 20
    refused_at_s: float | None = None
    """When it did."""
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
