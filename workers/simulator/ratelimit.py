"""The server's own limits: a bucket for each, of requests or of tokens, and what their headers tell the client."""

from __future__ import annotations

import math
from dataclasses import dataclass

from midwatch.workers.simulator.faults import Faults
from midwatch.workers.simulator.vendor_formats.vendor_format import RateState, Refusal, RefusalKind


@dataclass(slots=True)
class Bucket:
    """Fills at `per_minute`; holds `capacity`. Times are handed in, in seconds of any one clock."""

    per_minute: int
    capacity: float
    balance: float
    at_s: float

    @classmethod
    def full(cls, per_minute: int, capacity: float, now_s: float) -> Bucket:
        """A bucket as a vendor hands it to somebody who was idle for a minute."""
        return cls(per_minute, capacity, float(capacity), now_s)

    def withdraw(self, now_s: float, amount: int = 1) -> float:
        """Take so much: 0 when there was that, else the seconds until there is."""
        wait_s = self.wait_s(now_s, amount)
        if wait_s == 0:
            self.balance -= amount
        return wait_s

    def wait_s(self, now_s: float, amount: int) -> float:
        """Seconds until so much can be taken. What is more than the bucket holds needs it full, and leaves a debt."""
        per_s = self.per_minute / 60
        self.balance = min(self.capacity, self.balance + (now_s - self.at_s) * per_s)
        self.at_s = now_s
        if amount > self.per_minute:
            return math.inf
        return max(0.0, (min(amount, self.capacity) - self.balance) / per_s)

    def state(self, of: str = "requests") -> RateState:
        """For the headers, as of the last withdrawal."""
        reset_s = (self.capacity - self.balance) / (self.per_minute / 60)
        return RateState(self.per_minute, max(0, int(self.balance)), reset_s, of)


RequestBucket = Bucket
"""One of requests, by the name under which benchmarks know it."""


@dataclass(frozen=True, slots=True)
class Short:
    """Why a request is refused: the limit that it has to wait for longest."""

    of: str
    limit: int
    needed: int
    used: int
    wait_s: float
    """Infinite: it asks for more than a minute of the limit, and will always be refused."""

    def refusal(self, model: str) -> Refusal:
        """The same, for a vendor to word. Retry-After comes in whole seconds."""
        wait_s = None if math.isinf(self.wait_s) else math.ceil(self.wait_s)
        return Refusal(
            RefusalKind.RATE_LIMITED,
            model=model,
            limit=self.limit,
            of=self.of,
            used=self.used,
            needed=self.needed,
            retry_after_s=wait_s,
        )


class RateLimit:
    """All limits that are set."""

    def __init__(self, faults: Faults, now_s: float) -> None:
        per_minute = {
            "requests": faults.requests_per_minute,
            "input-tokens": faults.input_tokens_per_minute,
            "output-tokens": faults.output_tokens_per_minute,
            "tokens": faults.tokens_per_minute,
        }
        self._refused_count = faults.refused_count
        self._buckets = {
            of: Bucket.full(rate, max(1.0, rate * faults.burst_s / 60), now_s)
            for of, rate in per_minute.items()
            if rate
        }
        if faults.burst and faults.requests_per_minute:
            self._buckets["requests"] = Bucket.full(faults.requests_per_minute, faults.burst, now_s)

    @property
    def counts_tokens(self) -> bool:
        """True when a request's tokens matter."""
        return bool(self._buckets.keys() - {"requests"})

    def admit(self, now_s: float, *, fresh: int = 0, read: int = 0, at_most: int = 0) -> Short | None:
        """Let a request in and charge it, or say what is short; then nothing is charged.

        Args:
            now_s: the time.
            fresh: input tokens that are not in the prompt cache.
            read: all input tokens.
            at_most: output tokens that the answer may have.

        """
        needs = {"requests": 1, "input-tokens": fresh, "output-tokens": 1, "tokens": max(read, at_most)}
        waits = {of: bucket.wait_s(now_s, needs[of]) for of, bucket in self._buckets.items()}
        of = max(waits, key=waits.__getitem__, default="")
        if of and waits[of] > 0:
            return self._refuse(of, needs[of], waits[of])
        for of, bucket in self._buckets.items():
            bucket.balance -= 0 if of == "output-tokens" else needs[of]
        return None

    def wrote(self, output_tokens: int) -> None:
        """Charge what an answer came to."""
        if bucket := self._buckets.get("output-tokens"):
            bucket.balance -= output_tokens

    def states(self) -> dict[str, RateState]:
        """For the headers: how each limit stood after the last request."""
        return {of: bucket.state(of) for of, bucket in self._buckets.items()}

    def _refuse(self, of: str, needed: int, wait_s: float) -> Short:
        bucket = self._buckets[of]
        used = min(bucket.per_minute, max(0, bucket.per_minute - int(bucket.balance)))
        requests = self._buckets.get("requests")
        if self._refused_count and requests:  # down to a minute's debt: somebody who never stops must not wait for ever
            requests.balance = max(-float(requests.per_minute), requests.balance - 1)
        return Short(of, bucket.per_minute, needed, used, wait_s)
