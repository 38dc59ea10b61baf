"""The figures of a storm, from the downstream's journal. They do not depend on the fleet's records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from midwatch.workers.bench.storm_real.server import Arrival


def compute_figures(
    arrivals: Sequence[Arrival], *, logical: int, limit_per_s: float, from_s: float, to_s: float
) -> dict[str, Any]:
    """Compute the figures of one run.

    Args:
        arrivals: every request, in the order of arrival.
        logical: number of calls that had to be answered once.
        limit_per_s: the limit of the healthy downstream.
        from_s: when the trouble began: an outage, or a Retry-After.
        to_s: when the trouble ended.

    Returns:
        `amplification`: requests per logical call. It is at least 1 + `refused_at_first` / `logical_calls`.
        `per_answer`: requests per answered call, for runs that lose calls. `in_trouble`: requests during the trouble.
        `recovery_peak_per_s`: most requests in any second after it. `lost`: calls without an answer. `repeated`: further
        answers to an answered call. `drain_s`: time from the end of the trouble to the last answer, None if calls were
        lost. `ideal_drain_s`: this time at exactly the limit.

    """
    answered = [arrival for arrival in arrivals if arrival.status == 200]
    calls = {arrival.call for arrival in answered}
    lost = logical - len(calls)
    left = logical - len({arrival.call for arrival in answered if arrival.at_s < to_s})
    first_tries = {arrival.call: arrival for arrival in reversed(arrivals)}.values()
    statuses = Counter(arrival.status for arrival in arrivals)
    return {
        "logical_calls": logical,
        "calls_at_downstream": len(arrivals),
        "amplification": round(len(arrivals) / logical, 3),
        "per_answer": round(len(arrivals) / max(1, len(calls)), 3),
        "refused_at_first": sum(first.status != 200 for first in first_tries),
        "in_trouble": sum(from_s < arrival.at_s < to_s for arrival in arrivals),
        "recovery_peak_per_s": most_in_window([arrival.at_s for arrival in arrivals if arrival.at_s >= to_s]),
        "limit_per_s": limit_per_s,
        "lost": lost,
        "repeated": len(answered) - len(calls),
        "drain_s": None if lost else round(max(0.0, *(arrival.at_s - to_s for arrival in answered)), 1),
        "ideal_drain_s": round(left / limit_per_s, 1),
        "answers": {str(status): count for status, count in sorted(statuses.items())},
    }


def most_in_window(times_s: Sequence[float], window_s: float = 1.0) -> int:
    """Return the largest number of times in one window. The window may begin at any time."""
    ordered, first, most = sorted(times_s), 0, 0
    for last, time_s in enumerate(ordered):
        while time_s - ordered[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most
