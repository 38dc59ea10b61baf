"""The targets of a coordinated fleet in a storm, and the targets that a run missed."""

from __future__ import annotations

from midwatch.workers.bench.storm_simulated.figures import Figures
from midwatch.workers.bench.storm_simulated.scenarios import Scenario

MOST_CALLS = 1.05
"""Upper bound in an outage where every call fails: calls that reach the provider, divided by logical calls."""
MOST_CALLS_PARTIAL = 1.15
"""The bound for an outage where 30 % of the calls fail."""
MOST_CALLS_2X = 1.10
"""The bound for a fleet whose limit is set twice as high as the provider's."""

HIGHEST_PEAK = 1.15
"""Upper bound of the peak for a fleet with the right limit: calls in any second after the outage, divided by the limit."""

DRAIN_SHARE, DRAIN_S = 1.15, 25.0
"""The drain may take this share of the shortest possible time, and this many seconds more."""


def drain_bound_s(figures: Figures) -> float:
    """Return the longest allowed drain."""
    return DRAIN_SHARE * figures.drain_least_s + DRAIN_S


def most_calls(scenario: Scenario, *, limit_is_right: bool) -> float:
    """Return the highest allowed amplification."""
    most = MOST_CALLS if scenario.provider.share_failing == 1 else MOST_CALLS_PARTIAL
    return most if limit_is_right else max(most, MOST_CALLS_2X)


def find_missed(scenario: Scenario, figures: Figures, *, limit_is_right: bool = True) -> list[str]:
    """Return the missed targets, each with the figure and its bound."""
    most, bound_s = most_calls(scenario, limit_is_right=limit_is_right), drain_bound_s(figures)
    targets = [
        ("amplification", figures.amplification, most),
        ("drain_s", figures.drain_s, bound_s),
        ("lost_calls", figures.lost_calls, 0),
        ("lost_lineages", figures.lost_lineages, 0),
        ("repeated", figures.repeated, 0),
    ]
    if limit_is_right:
        targets.append(("recovery_peak", figures.recovery_peak, HIGHEST_PEAK))
    return [f"{name}: {value:.3f}, at most {most:.3f}" for name, value, most in targets if value > most]
