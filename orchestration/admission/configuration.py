"""Limits as the scripts read them: short names, milliseconds, and the constants that no operator needs to turn."""

from __future__ import annotations

import json

from midwatch.schemas.limits import Limits

RESERVES = {
    "anthropic": Limits(reserve_output="expected", count_cached=False),
    "openai": Limits(reserve_output="max_tokens"),
    "gemini": Limits(reserve_output="none"),
}
"""How each provider counts, from their rate-limit guides (November 2026): Anthropic by tokens really written, and no cached
input; OpenAI by `max_tokens` on one axis; Gemini by input alone."""

CONSTANTS = {
    "cold": 0.2,
    "f_min": 0.1,
    "cut_gap_ms": 1_000,
    "throttle_pause_ms": 1_000,
    "cold_after_ms": 10_000,
    "probe_min_ms": 2_000,
    "probe_max_ms": 10_000,
    "retry_cap": 20,
    "sick_ratio": 0.1,
    "sick_ms": 2_000,
    "brake_ms": 90_000,
}
"""
cold                of its rate a downstream that is new, or lost with its server, starts with
f_min               of its rate is the least that is left: enough to notice that it is well again
cut_gap_ms          a burst of 429s within it is one signal
throttle_pause_ms   after a 429 that names no wait
cold_after_ms       after a pause this long the rate starts from nothing
probe_min_ms, _max  how long a probe may take before another may be sent: three times the usual latency, in these bounds
retry_cap           most retries saved up in a downstream's budget
sick_ratio, _ms     it is sick while so many calls fail, and the last one failed so lately: budget and brake bind
brake_ms            a sick one is asked less, for so long
"""


def defaults(name: str) -> Limits:
    """Limits of a downstream that nobody configured: its provider's way to count, no figures."""
    return RESERVES.get(name.partition(":")[0], Limits())


def over_defaults(name: str, limits: Limits) -> Limits:
    """What an operator wrote, and his provider's way to count in all that he left open."""
    said = limits.model_dump(exclude_unset=True)
    return Limits.model_validate({**defaults(name).model_dump(exclude_unset=True), **said})


def configuration(name: str, limits: Limits, version: int | None) -> str:
    """The JSON that `configure.lua` takes; `version` is None for an operator's change: it is newer than all before."""
    return json.dumps(
        {
            **CONSTANTS,
            "name": name,
            "version": version,
            "q": limits.requests_per_minute or 0,
            "i": limits.input_tokens_per_minute or 0,
            "o": limits.output_tokens_per_minute or 0,
            "t": limits.tokens_per_minute or 0,
            "burst_ms": limits.burst_s * 1_000,
            "headroom": limits.headroom,
            "reserve_output": limits.reserve_output,
            "count_cached": limits.count_cached,
            "priorities": {priority.value: weight for priority, weight in limits.priority_weights.items()},
            "tenants": limits.tenant_weights,
            "fail_ratio": limits.fail_ratio,
            "min_calls": limits.min_calls,
            "in_a_row": limits.failures_in_a_row,
            "window_ms": limits.window_s * 1_000,
            "open_ms": limits.open_s * 1_000,
            "open_max_ms": limits.open_max_s * 1_000,
            "probes": limits.probes,
            "probe_ok": limits.probes // 2 + 1,
            "ramp_ms": limits.ramp_s * 1_000,
            "recover_ms": limits.recover_s * 1_000,
            "cut": limits.cut,
            "retry_ratio": limits.retry_ratio,
            "retry_floor": limits.retry_floor_per_s,
            "pause_max_ms": limits.pause_max_s * 1_000,
            "said": limits.model_dump(mode="json", exclude_defaults=True),
        }
    )
