"""The figures of one simulated run: calls, peaks, losses, and the time to finish the work after the outage."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from midwatch.schemas.failure import FailureKind
from midwatch.workers.bench.storm_simulated.provider import Provider
from midwatch.workers.bench.storm_simulated.scenarios import Scenario

WATCHED_S = 300
"""How many seconds after the outage are searched for the highest peak."""

STEP_S = 0.1


Path = tuple[int, ...]
"""A call: number of the lineage, number of the root's child, number of that child's child."""


@dataclass
class Progress:
    """The progress of a fleet's logical calls."""

    done_s: dict[Path, float] = field(default_factory=dict)
    """Call -> when it first succeeded."""
    repeated: int = 0
    """Successes of calls that had already succeeded."""
    lineages_ended_s: list[float] = field(default_factory=list)
    lineages_lost: int = 0
    decisions: int = 0
    """Round trips to the coordinator."""

    def count_success(self, path: Path, now_s: float) -> None:
        """Count a success."""
        if path in self.done_s:
            self.repeated += 1
        else:
            self.done_s[path] = now_s


@dataclass(frozen=True)
class Figures:
    """The figures of one run, or the medians of several runs."""

    amplification: float
    """Calls that reached the provider, divided by logical calls. It is below 1 if work was lost."""
    per_completed: float
    """Calls that reached the provider, divided by completed calls. This is the fair figure if work was lost."""
    in_outage: float
    outage_peak_per_s: float
    recovery_peak_per_s: float
    recovery_peak: float
    """Most calls in one second after the outage, divided by the provider's limit."""
    drain_s: float
    """Time from the end of the outage to the end of the last lineage. Infinite if a lineage did not end."""
    drain_least_s: float
    """The shortest possible drain: provider or fleet, whichever is slower, is never idle."""
    work_left: float
    """Logical calls not done when the outage ended."""
    lost_calls: float
    lost_lineages: float
    repeated: float
    throttled: float
    failed: float
    decisions: float
    """Round trips to the coordinator, divided by logical calls."""


def compute_figures(scenario: Scenario, provider: Provider, progress: Progress) -> Figures:
    """Compute the figures of a finished run."""
    model, load = scenario.provider, scenario.load
    begin, end = int(model.outage_from_s), int(model.outage_until_s)
    calls, done = provider.by_second.total(), len(progress.done_s)
    outage = [provider.by_second[second] for second in range(begin, end)]
    peak = max(provider.by_second[second] for second in range(end, end + WATCHED_S))
    left = load.calls - sum(at_s < end for at_s in progress.done_s.values())
    over = len(progress.lineages_ended_s) == load.lineages
    return Figures(
        amplification=calls / load.calls,
        per_completed=calls / max(1, done),
        in_outage=sum(outage),
        outage_peak_per_s=max(outage),
        recovery_peak_per_s=peak,
        recovery_peak=peak / model.limit_per_s,
        drain_s=max(0.0, max(progress.lineages_ended_s) - end) if over else float("inf"),
        drain_least_s=shortest_drain_s(scenario, left),
        work_left=left,
        lost_calls=load.calls - done,
        lost_lineages=progress.lineages_lost + load.lineages - len(progress.lineages_ended_s),
        repeated=progress.repeated,
        throttled=provider.answers[FailureKind.RATE_LIMITED],
        failed=provider.answers[model.failing],
        decisions=progress.decisions / load.calls,
    )


def shortest_drain_s(scenario: Scenario, work_left: int) -> float:
    """Return the shortest time for the work left after the outage, at the rate of provider or fleet, whichever is slower."""
    model, fleet_per_s = scenario.provider, scenario.load.capacity_per_s
    steps, left = 0, float(work_left)
    while left > 0:
        left -= STEP_S * min(fleet_per_s, model.capacity_per_s(model.outage_until_s + steps * STEP_S))
        steps += 1
    return steps * STEP_S


def medians(runs: Sequence[Figures]) -> Figures:
    """Return the median of each field."""
    return Figures(**{name: statistics.median(getattr(run, name) for run in runs) for name in asdict(runs[0])})
