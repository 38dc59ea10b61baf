"""What one simulated run came to: calls, peaks, losses, and how long it took to work off what the outage left."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from midwatch.schemas.failure import FailureKind
from midwatch.workers.bench.storm_simulated.provider import Provider
from midwatch.workers.bench.storm_simulated.scenarios import Scenario

WATCHED_S = 300
"""How long after the outage the calls of each second are looked at."""

STEP_S = 0.1


Path = tuple[int, ...]
"""Which call: the lineage, which child of its root, which child of that."""


@dataclass
class Progress:
    """What is known of the logical calls, as a fleet works on them."""

    done_s: dict[Path, float] = field(default_factory=dict)
    """Call -> when it first succeeded."""
    repeated: int = 0
    """Successes of calls that had succeeded before."""
    lineages_ended_s: list[float] = field(default_factory=list)
    lineages_lost: int = 0
    decisions: int = 0
    """Round trips to the coordinator."""

    def succeeded(self, path: Path, now_s: float) -> None:
        """Count a success."""
        if path in self.done_s:
            self.repeated += 1
        else:
            self.done_s[path] = now_s


@dataclass(frozen=True)
class Figures:
    """One run, or the medians of several."""

    amplification: float
    """Calls that reached the provider, by logical calls: below 1 when work was lost."""
    per_completed: float
    """The same by completed calls: the honest figure where work was lost."""
    in_outage: float
    outage_peak_per_s: float
    recovery_peak_per_s: float
    recovery_peak: float
    """The fullest second after the outage, by the provider's limit."""
    drain_s: float
    """From the end of the outage to the end of the last lineage; infinite when it did not come."""
    drain_least_s: float
    """How long the work left takes when provider or fleet, whichever bears less, is never idle."""
    work_left: float
    """Logical calls not done when the outage ended."""
    lost_calls: float
    lost_lineages: float
    repeated: float
    throttled: float
    failed: float
    decisions: float
    """Round trips to the coordinator, by logical calls."""


def measured(scenario: Scenario, provider: Provider, progress: Progress) -> Figures:
    """The figures of a run that is over."""
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
        drain_least_s=least_s(scenario, left),
        work_left=left,
        lost_calls=load.calls - done,
        lost_lineages=progress.lineages_lost + load.lineages - len(progress.lineages_ended_s),
        repeated=progress.repeated,
        throttled=provider.answers[FailureKind.RATE_LIMITED],
        failed=provider.answers[model.failing],
        decisions=progress.decisions / load.calls,
    )


def least_s(scenario: Scenario, work_left: int) -> float:
    """How long the work takes after the outage when provider or fleet, whichever bears less, is never idle."""
    model, fleet_per_s = scenario.provider, scenario.load.capacity_per_s
    steps, left = 0, float(work_left)
    while left > 0:
        left -= STEP_S * min(fleet_per_s, model.capacity_per_s(model.outage_until_s + steps * STEP_S))
        steps += 1
    return steps * STEP_S


def medians(runs: Sequence[Figures]) -> Figures:
    """Field by field."""
    return Figures(**{name: statistics.median(getattr(run, name) for run in runs) for name in asdict(runs[0])})
