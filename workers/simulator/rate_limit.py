"""The server's rate limits: one bucket for each limit of requests or tokens, and their state for the headers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from midwatch.workers.simulator.faults.faults import Faults
from midwatch.workers.simulator.vendor_formats.vendor_format import RateState, Refusal, RefusalKind


@dataclass(slots=True)
class Bucket:
    """A token bucket that fills at `per_minute` up to `capacity`. The caller passes the time, in seconds of one clock."""

    per_minute: int
    capacity: float
    balance: float
    at_s: float

    @classmethod
    def make_full(cls, per_minute: int, capacity: float, now_s: float) -> Bucket:
        """Make a full bucket, like that of a client that was idle for a minute."""
        return cls(per_minute, capacity, float(capacity), now_s)

    def withdraw(self, now_s: float, amount: int = 1) -> float:
        """Withdraw an amount and return 0. If it is not available, return the seconds until it is."""
        wait_s = self.wait_s(now_s, amount)
        if wait_s == 0:
            self.balance -= amount
        return wait_s

    def wait_s(self, now_s: float, amount: int) -> float:
        """Return the seconds until an amount is available.

        An amount above the capacity needs a full bucket and overdraws it. An amount above the limit per minute is
        never available.
        """
        per_s = self.per_minute / 60
        self.balance = min(self.capacity, self.balance + (now_s - self.at_s) * per_s)
        self.at_s = now_s
        if amount > self.per_minute:
            return math.inf
        return max(0.0, (min(amount, self.capacity) - self.balance) / per_s)

    def state(self, unit: str = "requests") -> RateState:
        """Return the state for the headers, after the last withdrawal."""
        reset_s = (self.capacity - self.balance) / (self.per_minute / 60)
        return RateState(self.per_minute, max(0, int(self.balance)), reset_s, unit)


@dataclass(frozen=True, slots=True)
class LimitReached:
    """The limit that refuses a request. If several do, it is the one with the longest wait."""

    unit: str
    limit: int
    needed: int
    used: int
    wait_s: float
    """Infinite if the request needs more than the limit per minute, so that it is always refused."""

    def to_refusal(self, model: str) -> Refusal:
        """Convert it into a Refusal. Retry-After is in whole seconds."""
        wait_s = None if math.isinf(self.wait_s) else math.ceil(self.wait_s)
        return Refusal(
            RefusalKind.RATE_LIMITED,
            model=model,
            limit=self.limit,
            unit=self.unit,
            used=self.used,
            needed=self.needed,
            retry_after_s=wait_s,
        )


class RateLimit:
    """All configured limits."""

    def __init__(self, faults: Faults, now_s: float) -> None:
        per_minute = {
            "requests": faults.requests_per_minute,
            "input-tokens": faults.input_tokens_per_minute,
            "output-tokens": faults.output_tokens_per_minute,
            "tokens": faults.tokens_per_minute,
        }
        self._refused_count = faults.refused_count
        self._buckets = {
            unit: Bucket.make_full(rate, max(1.0, rate * faults.burst_s / 60), now_s)
            for unit, rate in per_minute.items()
            if rate
        }
        if faults.burst and faults.requests_per_minute:
            self._buckets["requests"] = Bucket.make_full(faults.requests_per_minute, faults.burst, now_s)

    @property
    def counts_tokens(self) -> bool:
        """True if a limit counts tokens."""
        return bool(self._buckets.keys() - {"requests"})

    def admit(self, now_s: float, *, fresh: int = 0, read: int = 0, at_most: int = 0) -> LimitReached | None:
        """Admit a request and charge all limits, or return the limit that refuses it and charge none.

        Args:
            now_s: the time.
            fresh: input tokens that are not in the prompt cache.
            read: all input tokens.
            at_most: most output tokens of the answer.

        """
        needs = {"requests": 1, "input-tokens": fresh, "output-tokens": 1, "tokens": max(read, at_most)}
        waits = {unit: bucket.wait_s(now_s, needs[unit]) for unit, bucket in self._buckets.items()}
        unit = max(waits, key=waits.__getitem__, default="")
        if unit and waits[unit] > 0:
            return self._refuse(unit, needs[unit], waits[unit])
        for unit, bucket in self._buckets.items():
            bucket.balance -= 0 if unit == "output-tokens" else needs[unit]
        return None

    def charge_output(self, output_tokens: int) -> None:
        """Charge the output tokens of an answer."""
        if bucket := self._buckets.get("output-tokens"):
            bucket.balance -= output_tokens

    def states(self) -> dict[str, RateState]:
        """Return the state of each limit after the last request, for the headers."""
        return {unit: bucket.state(unit) for unit, bucket in self._buckets.items()}

    def _refuse(self, unit: str, needed: int, wait_s: float) -> LimitReached:
        bucket = self._buckets[unit]
        used = min(bucket.per_minute, max(0, bucket.per_minute - int(bucket.balance)))
        requests = self._buckets.get("requests")
        if self._refused_count and requests:
            # Limit the debt to one minute. Otherwise a client that does not stop would never be admitted again.
            requests.balance = max(-float(requests.per_minute), requests.balance - 1)
        return LimitReached(unit, bucket.per_minute, needed, used, wait_s)
