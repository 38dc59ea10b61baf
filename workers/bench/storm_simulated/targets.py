"""What a coordinated fleet promises in a storm, and which of it a run missed."""

from __future__ import annotations

from midwatch.workers.bench.storm_simulated.figures import Figures
from midwatch.workers.bench.storm_simulated.scenarios import Scenario

MOST_CALLS = 1.05
"""Calls that reach the provider, by logical calls, in an outage that fails every call ..."""
MOST_CALLS_PARTIAL = 1.15
"""... in one that fails 30 % ..."""
MOST_CALLS_2X = 1.10
"""... and with a limit set twice as high as the provider's."""

HIGHEST_PEAK = 1.15
"""Calls in any second after the outage, by the provider's limit; for a fleet that was told the limit."""

DRAIN_SHARE, DRAIN_S = 1.15, 25.0
"""After the outage: this share of the least time that the work left takes, and so many seconds."""


def drain_bound_s(figures: Figures) -> float:
    """How long the drain may take."""
    return DRAIN_SHARE * figures.drain_least_s + DRAIN_S


def most_calls(scenario: Scenario, *, limit_is_right: bool) -> float:
    """The amplification that is allowed."""
    most = MOST_CALLS if scenario.provider.share_failing == 1 else MOST_CALLS_PARTIAL
    return most if limit_is_right else max(most, MOST_CALLS_2X)


def missed(scenario: Scenario, figures: Figures, *, limit_is_right: bool = True) -> list[str]:
    """The targets that the figures do not reach, each with what was expected and what came."""
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
