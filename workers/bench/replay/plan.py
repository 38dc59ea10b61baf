"""The plan of a run of `bench replay`, and the behaviour of its downstream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from midwatch.orchestration.client.letters.replay_window import MOST_UNDER_WAY
from midwatch.schemas.contract import Contract
from midwatch.workers.bench.storm_real.course import Answer, Limit


class Plan(Contract):
    """What a run does. Workers read it from the environment."""

    VARIABLE: ClassVar[str] = "BENCH_REPLAY"

    letters: int = 300
    limit_per_s: float = 50.0
    live_share: float = 0.2
    """Live jobs, as a share of the limit."""
    alone_s: float = 10.0
    """How long live jobs run alone."""
    staying: int = 50
    """Letters of the cause that stays."""

    @property
    def live_per_s(self) -> float:
        """Live jobs per second."""
        return self.live_share * self.limit_per_s

    @property
    def max_wait_s(self) -> float:
        """The jobs' `max_wait_s`: longer than a full batch of replays needs, so only an outage uses it up."""
        return 5.0 + 1.5 * min(self.letters, MOST_UNDER_WAY) / (self.limit_per_s - self.live_per_s)

    @property
    def patience_s(self) -> float:
        """Longest time of one part of the run."""
        return 120.0 + 3 * self.max_wait_s + 4 * self.letters / (self.limit_per_s - self.live_per_s)


@dataclass
class Switch:
    """A downstream with a limit, which can be switched off and on. Switched off, it answers 529."""

    limit: Limit
    is_away: bool = False

    async def answer(self, at_s: float, call: str) -> Answer:
        """See `Course`."""
        return Answer(529) if self.is_away else self.limit.answer(at_s)

    def trouble(self) -> tuple[float, float]:
        """See `Course`. The runs measure their parts themselves."""
        return 0.0, 0.0
