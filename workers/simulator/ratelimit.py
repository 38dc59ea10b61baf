"""The server's own limit: a token bucket of requests, and what its headers tell the client."""

from __future__ import annotations

from dataclasses import dataclass

from workers.simulator.wires.wire import RateState


@dataclass(slots=True)
class RequestBucket:
    """Fills at `per_minute`; holds `capacity`. Times are handed in, in seconds of any one clock."""

    per_minute: int
    capacity: int
    balance: float
    at_s: float

    @classmethod
    def full(cls, per_minute: int, capacity: int, now_s: float) -> RequestBucket:
        """A bucket as a vendor hands it to somebody who was idle for a minute."""
        return cls(per_minute, capacity, float(capacity), now_s)

    def withdraw(self, now_s: float) -> float:
        """Take one request: 0 when there was one, else the seconds until there is."""
        per_s = self.per_minute / 60
        self.balance = min(self.capacity, self.balance + (now_s - self.at_s) * per_s)
        self.at_s = now_s
        if self.balance >= 1:
            self.balance -= 1
            return 0.0
        return (1 - self.balance) / per_s

    def state(self) -> RateState:
        """For the headers, as of the last withdrawal."""
        reset_s = (self.capacity - self.balance) / (self.per_minute / 60)
        return RateState(self.per_minute, int(self.balance), reset_s)
