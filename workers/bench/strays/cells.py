"""The cells of `midwatch bench strays`: an offered rate, a share of stray 429s, and a limit that the downstream does not name."""

from __future__ import annotations

import math
from dataclasses import dataclass

RATES = (60, 600, 6_000)
"""Calls a minute."""
SHARES = (0.005, 0.01, 0.03, 0.10)
"""Shares of the calls that get a 429 by chance."""
OVERLOAD = 2.0
"""Where there is a limit, this many times its calls are offered."""
BURST_S = {"1 s": 1.0, "60 s": 60.0}
"""How many seconds of its limit a downstream's bucket holds. llmock's holds a minute."""


@dataclass(frozen=True)
class Cell:
    """One run: calls arrive at `offered` a minute, at random times."""

    offered: float
    share: float = 0.0
    """Share of stray 429s."""
    limit: float | None = None
    """The downstream's limit a minute, which no header names. None: it has none."""
    burst_s: float = 1.0
    """How many seconds of its limit the downstream's bucket holds. It is full at the start."""
    told: float | None = None
    """The limit that an operator has set. None: none is set."""

    def most(self, seconds: float) -> float:
        """Return how many calls the downstream answers at most in this time."""
        return math.inf if self.limit is None else self.limit * (seconds + self.burst_s) / 60


def make_cells() -> list[Cell]:
    """Return all cells: strays without a limit, limits without strays, both together, and strays under a limit that is set."""
    strays = [Cell(rate, share) for rate in RATES for share in SHARES]
    limits = [Cell(rate * OVERLOAD, limit=rate, burst_s=burst_s) for rate in RATES for burst_s in BURST_S.values()]
    both = [Cell(rate * OVERLOAD, 0.03, limit=rate) for rate in RATES]
    told = [Cell(rate, 0.03, told=rate * OVERLOAD) for rate in RATES]
    return [*strays, *limits, *both, *told]
