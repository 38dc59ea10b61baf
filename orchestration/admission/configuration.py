"""Convert limits to the form that the coordinator's functions read: in milliseconds, with the constants added."""

from __future__ import annotations

import json

from midwatch.orchestration.admission.legend_of_configuration import CONFIG
from midwatch.schemas.limits import Limits

RESERVES = {
    "anthropic": Limits(reserve_output="expected", count_cached=False),
    "openai": Limits(reserve_output="max_tokens"),
    "gemini": Limits(reserve_output="none"),
}
"""How each provider counts, from their rate-limit guides (November 2026). Anthropic counts the tokens that were really written,
and no cached input. OpenAI counts `max_tokens`, in one limit with the input. Gemini counts input only."""

CONSTANTS = {
    "cold_rate": 0.2,
    "least_rate": 0.1,
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
"""The constants. `legend_of_configuration` has their meaning, and `docs/coordinator.md` has the reasons for their values."""


def defaults(name: str) -> Limits:
    """Limits of a downstream that was not configured: no rates, and the provider's way to count."""
    return RESERVES.get(name.partition(":")[0], Limits())


def over_defaults(name: str, limits: Limits) -> Limits:
    """Complete an operator's limits. Fields that they leave unset get the defaults of the provider."""
    written = limits.model_dump(exclude_unset=True)
    return Limits.model_validate({**defaults(name).model_dump(exclude_unset=True), **written})


def configuration(name: str, limits: Limits, version: int | None) -> str:
    """The argument of `configure.lua`, as JSON. With `version` None it is an operator's change, newer than any version."""
    fields = {
        **CONSTANTS,
        "name": name,
        "version": version,
        "requests_per_minute": limits.requests_per_minute or 0,
        "input_tokens_per_minute": limits.input_tokens_per_minute or 0,
        "output_tokens_per_minute": limits.output_tokens_per_minute or 0,
        "tokens_per_minute": limits.tokens_per_minute or 0,
        "burst_ms": limits.burst_s * 1_000,
        "headroom": limits.headroom,
        "reserve_output": limits.reserve_output,
        "count_cached": limits.count_cached,
        "priorities": dict(limits.priority_weights),
        "tenants": limits.tenant_weights,
        "fail_ratio": limits.fail_ratio,
        "min_calls": limits.min_calls,
        "failures_in_a_row": limits.failures_in_a_row,
        "window_ms": limits.window_s * 1_000,
        "open_ms": limits.open_s * 1_000,
        "open_max_ms": limits.open_max_s * 1_000,
        "probes": limits.probes,
        "probes_to_close": limits.probes // 2 + 1,
        "trial_gap_ms": limits.trial_gap_s * 1_000,
        "ramp_ms": limits.ramp_s * 1_000,
        "recover_ms": limits.recover_s * 1_000,
        "cut": limits.cut,
        "retry_ratio": limits.retry_ratio,
        "retry_floor_per_s": limits.retry_floor_per_s,
        "pause_max_ms": limits.pause_max_s * 1_000,
        "as_set": limits.model_dump(mode="json", exclude_defaults=True),
    }
    return json.dumps({CONFIG[word].stored: value for word, value in fields.items()})
