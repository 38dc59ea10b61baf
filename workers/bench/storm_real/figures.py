"""What the downstream's own journal says of a storm. Nothing here asks the fleet how it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from midwatch.workers.bench.storm_real.server import Arrival


def figures(
    arrivals: Sequence[Arrival], *, logical: int, limit_per_s: float, from_s: float, to_s: float
) -> dict[str, Any]:
    """The figures of one run.

    Args:
        arrivals: every request, in the order of arrival.
        logical: calls that had to be answered, each once.
        limit_per_s: what the downstream takes when it is well.
        from_s: when its trouble began: an outage, or a Retry-After.
        to_s: when that was over.

    Returns:
        `amplification`: requests for each logical call, which can't be below 1 + `refused_at_first` / `logical_calls`;
        `per_answer`: requests for each call that was answered, for runs that lose some; `in_trouble`: requests while it
        lasted; `recovery_peak_per_s`: most requests within any one second after it; `lost`: calls never answered;
        `repeated`: answers to a call that had been answered; `drain_s`: from the end of the trouble to the last answer,
        None when calls were lost; `ideal_drain_s`: the same at exactly the limit.

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
        "recovery_peak_per_s": peak([arrival.at_s for arrival in arrivals if arrival.at_s >= to_s]),
        "limit_per_s": limit_per_s,
        "lost": lost,
        "repeated": len(answered) - len(calls),
        "drain_s": None if lost else round(max(0.0, *(arrival.at_s - to_s for arrival in answered)), 1),
        "ideal_drain_s": round(left / limit_per_s, 1),
        "answers": {str(status): count for status, count in sorted(statuses.items())},
    }


def peak(moments_s: Sequence[float], window_s: float = 1.0) -> int:
    """The most that fall into one window, wherever it begins."""
    ordered, first, most = sorted(moments_s), 0, 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most
