"""What a field of the legend is, and the fields of a downstream's configuration."""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """One field."""

    stored: str
    unit: str
    """A unit of `us` or `ms` alone is a time since 1970. The unit of a length says that it is a length."""
    meaning: str


CONFIG = {
    "name": Field("name", "text", "the downstream"),
    "version": Field("version", "ms", "when the limits were set: the newest wins"),
    "requests_per_minute": Field("q", "requests a minute", "the operator's limit; 0: none"),
    "input_tokens_per_minute": Field("i", "tokens a minute", "the operator's limit; 0: none"),
    "output_tokens_per_minute": Field("o", "tokens a minute", "the operator's limit; 0: none"),
    "tokens_per_minute": Field("t", "tokens a minute", "the operator's limit; 0: none"),
    "burst_ms": Field("burst_ms", "ms, a length", "size of every bucket: the time in which its limit fills it"),
    "headroom": Field("headroom", "share", "the share of each bucket that only priority high may use"),
    "reserve_output": Field("reserve_output", "word", "how much output a call reserves: expected, max_tokens or none"),
    "count_cached": Field("count_cached", "bool", "input from the prompt cache counts"),
    "priorities": Field("priorities", "weight by priority", "weight of each priority in the line"),
    "tenants": Field(
        "tenants", "weight by tenant", "weight of each tenant in the line; 1 for a tenant that is not listed"
    ),
    "fail_ratio": Field("fail_ratio", "share", "the share of failed calls above which the breaker opens"),
    "min_calls": Field("min_calls", "calls", "with fewer calls the share of failures is not used"),
    "failures_in_a_row": Field("in_a_row", "calls", "failures in a row that open the breaker, even if calls are few"),
    "window_ms": Field("window_ms", "ms, a length", "length of each of the two windows in which calls are counted"),
    "open_ms": Field("open_ms", "ms, a length", "how long the breaker is open the first time"),
    "open_max_ms": Field("open_max_ms", "ms, a length", "how long the breaker is open at most"),
    "probes": Field("probes", "calls", "most probes at once while the breaker is half open"),
    "probes_to_close": Field("probe_ok", "calls", "answered probes that close the breaker: more than half of `probes`"),
    "trial_gap_ms": Field("trial_gap_ms", "ms, a length", "least time between calls while in trouble; absent: 750"),
    "ramp_ms": Field("ramp_ms", "ms, a length", "slow start: the time from zero to the full rate"),
    "recover_ms": Field("recover_ms", "ms, a length", "the time from zero to the full rate after 429s"),
    "cut": Field("cut", "share", "the share of the rate that remains after a 429"),
    "retry_ratio": Field("retry_ratio", "retries", "what one answered call adds to the retry budget"),
    "retry_floor_per_s": Field("retry_floor", "retries a second", "what each second adds to the retry budget"),
    "pause_max_ms": Field("pause_max_ms", "ms, a length", "a longer Retry-After is cut to this"),
    "as_set": Field("said", "JSON", "the limits as the operator wrote them"),
    "cold_rate": Field("cold", "share", "the share of its rate that a new or lost downstream starts with"),
    "least_rate": Field("f_min", "share", "the least share of the rate: enough calls to notice a recovery"),
    "cut_gap_ms": Field("cut_gap_ms", "ms, a length", "429s within this time cut the rate once"),
    "throttle_pause_ms": Field("throttle_pause_ms", "ms, a length", "pause after a 429 that names no wait"),
    "cold_after_ms": Field(
        "cold_after_ms", "ms, a length", "after a pause of this length the rate starts at `least_rate`"
    ),
    "probe_min_ms": Field("probe_min_ms", "ms, a length", "least timeout of a probe: it gets three usual latencies"),
    "probe_max_ms": Field("probe_max_ms", "ms, a length", "largest timeout of a probe; then another may be sent"),
    "retry_cap": Field("retry_cap", "retries", "most retries that the retry budget holds"),
    "sick_ratio": Field(
        "sick_ratio",
        "share",
        "a downstream is sick from this share of failures on: budget and brake apply",
    ),
    "sick_ms": Field("sick_ms", "ms, a length", "a downstream is no longer sick when its last failure is older"),
    "brake_ms": Field("brake_ms", "ms, a length", "the longest time for which a sick downstream is braked"),
}
"""Names of a downstream's configuration: the fields `cfg` and `weights` (MessagePack) and `json` of its HASH."""
