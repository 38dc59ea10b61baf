"""Legend: every field that the coordinator keeps in Redis, with its unit and meaning.

The Lua files and `configuration.py` write a field by its word: `state.paused_until`. In Redis it has a short name: `pu`. The
short names must stay, because two releases share one state while a fleet is upgraded. So `with_stored_names` puts them in
place of the words when the library is loaded. A word that is not listed here is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Field(NamedTuple):
    """One field."""

    stored: str
    unit: str
    """A unit of `us` or `ms` alone is a time since 1970. The unit of a length says that it is a length."""
    meaning: str


RESOURCES = {"requests": "q", "input_tokens": "i", "output_tokens": "o", "tokens": "t"}
"""The limited resources, and the letter of each in stored tables. `tokens` is input and output together."""

CALL_STATES = {
    "WAITING": "w",  # in a line
    "WOKEN": "k",  # may start before other calls
    "LIVE": "l",  # admitted, its tokens taken
    "PACED": "p",  # a retry that has a start time and its share of the retry budget
    "UNCOUNTED": "f",  # its last failure did not count against its `max_retries`
}

LANES = {"HIGH_LANE": "h", "REST_LANE": "n", "RETRY_LANE": "r"}

STATE = {
    "name": Field("name", "text", "the downstream"),
    "refilled_at": Field("ts", "us", "up to when buckets and retry budget are filled"),
    "level": Field("lv", "by resource", "what is left in each bucket; below 0 it is a debt"),
    "promised": Field("wk", "by resource", "what is kept free for woken calls; absent: nothing"),
    "learned": Field("lim", "by resource, a minute", "limits from the provider's headers, or guessed; absent: none"),
    "guessed": Field("guess", "bool", "the learned request limit was guessed from 429s"),
    "braked_to": Field("cap", "requests a minute", "what the brake allows; absent: it does not bind"),
    "woken": Field("wn", "calls", "woken, and not started yet"),
    "virtual_time": Field("v", "us, virtual", "where the lines have come to"),
    "in_line": Field("nq", "calls", "in all lines"),
    "next_expiry_at": Field("nx", "us", "when the next record of a call expires"),
    "rate": Field("f", "share", "of its limits that it got at `rate_since`"),
    "rate_threshold": Field("th", "share", "up to which the rate climbs fast (slow start)"),
    "rate_since": Field("ft", "us", "since when the rate climbs"),
    "cut_at": Field("fc", "us", "when the last 429 cut the rate"),
    "paused_until": Field("pu", "us", "no call is admitted before"),
    "blocked_until": Field("bu", "us", "every call is denied before"),
    "block_reason": Field("br", "text", "why it is blocked, at most 200 bytes"),
    "breaker": Field("cb", "number", "0 closed, 1 open, 2 half open"),
    "open_until": Field("cu", "us", "when an open breaker becomes half open"),
    "openings_in_a_row": Field("ck", "openings", "since it was last closed: each is longer than the one before"),
    "openings": Field("g", "openings", "ever: a call remembers it, and is old news after the next one"),
    "failed_in_a_row": Field("cf", "calls", "failed since the last answer"),
    "next_probe_at": Field("pa", "us", "no first probe before"),
    "probes_answered": Field("pk", "calls", "since it is half open"),
    "probes_failed": Field("px", "calls", "since it is half open; absent: none"),
    "probe_deadlines": Field("pl", "list of us", "when each probe under way is written off; absent: none"),
    "window_since": Field("ws", "us", "when the current window began"),
    "window_ok": Field("wo", "calls", "answered in the current window"),
    "window_failed": Field("wf", "calls", "failed in the current window"),
    "window_before_ok": Field("po", "calls", "answered in the window before"),
    "window_before_failed": Field("pf", "calls", "failed in the window before"),
    "failed_at": Field("lf", "us", "when a call last failed"),
    "second": Field("w", "s", "the current second, since 1970"),
    "second_begun": Field("wa", "calls", "admitted in the current second"),
    "second_failed": Field("wb", "calls", "of them, failed"),
    "second_before_begun": Field("pw", "calls", "admitted in the second before"),
    "second_before_failed": Field("pb", "calls", "of them, failed"),
    "sick_since": Field("sk", "us", "since when it loses calls; absent: it does not"),
    "rate_before_sick": Field("sr", "requests a minute", "at its full rate, before it was sick; absent: it is not"),
    "retry_balance": Field("rb", "retries", "what is left of its retry budget"),
    "latency_ms": Field("la", "ms, a length", "what a call usually takes: a moving average"),
    "output_p90": Field("p9", "tokens", "what nine of ten calls write at most"),
    "admitted": Field("na", "calls", "admitted ever"),
    "answered": Field("no", "calls", "answered ever"),
    "live": Field("live", "calls", "admitted and not settled"),
}
"""Names of a downstream's state: the field `st` of its HASH."""

CALL = {
    "state": Field("s", "letter", "see CALL_STATES"),
    "member": Field("m", "text", "the step, as a steward publishes it"),
    "attempt_id": Field("y", "attempt.losses", "the attempt that it was made for: a lineage pays once for each"),
    "uncounted": Field("fr", "bool", "it follows a failure that does not count against the call's own retries"),
    "fence": Field("fe", "number", "of the claim that made a live call"),
    "input": Field("i", "tokens", "input reserved"),
    "output": Field("o", "tokens", "output reserved"),
    "lane": Field("lane", "letter", "the line it waits in: see LANES"),
    "tag": Field("tag", "us, virtual", "its place in the line: the virtual start"),
    "headroom": Field("hr", "share", "of each bucket that it leaves to higher priorities"),
    "reason": Field("w", "word", "why it waits, while it waits"),
    "second": Field("w", "s", "the second it was admitted in, while it is live"),
    "starts_at": Field("at", "us", "when a paced or a held call may start; when a woken one was woken"),
    "generation": Field("g", "openings", "of the breaker before it was admitted"),
    "probe_deadline": Field("p", "us", "when this probe is written off; absent: it is no probe"),
    "lineage": Field("root", "key", "of its lineage; absent: it reserved no tokens there"),
    "reserved_input": Field("li", "tokens", "input reserved in its lineage"),
    "reserved_output": Field("lo", "tokens", "output reserved in its lineage"),
}
"""Names of a call's record: its entry in the HASH `calls`."""

LINEAGE = {
    "calls": Field("n", "calls", "admitted"),
    "retries": Field("u", "retries", "paid for"),
    "since": Field("t", "us", "when it was first counted"),
    "reserved_input": Field("ri", "tokens", "input reserved by live calls"),
    "reserved_output": Field("ro", "tokens", "output reserved by live calls"),
    "used_input": Field("ui", "tokens", "input used"),
    "used_output": Field("uo", "tokens", "output used"),
    "most_input": Field("bi", "tokens", "input that it may use; 0: any number"),
    "most_output": Field("bo", "tokens", "output that it may use; 0: any number"),
}
"""Names of a lineage's record: the fields of its HASH."""

CONFIG = {
    "name": Field("name", "text", "the downstream"),
    "version": Field("version", "ms", "when the limits were set: the newest wins"),
    "requests_per_minute": Field("q", "requests a minute", "the operator's limit; 0: none"),
    "input_tokens_per_minute": Field("i", "tokens a minute", "the operator's limit; 0: none"),
    "output_tokens_per_minute": Field("o", "tokens a minute", "the operator's limit; 0: none"),
    "tokens_per_minute": Field("t", "tokens a minute", "the operator's limit; 0: none"),
    "burst_ms": Field("burst_ms", "ms, a length", "depth of every bucket, in time of its limit"),
    "headroom": Field("headroom", "share", "of each bucket that only priority high may use"),
    "reserve_output": Field("reserve_output", "word", "what a call reserves of output: expected, max_tokens or none"),
    "count_cached": Field("count_cached", "bool", "input that was read from the prompt cache counts"),
    "priorities": Field("priorities", "weight by priority", "shares of the line"),
    "tenants": Field("tenants", "weight by tenant", "shares of the line; 1 for a tenant that is not named"),
    "fail_ratio": Field("fail_ratio", "share", "the breaker opens when more of the calls fail"),
    "min_calls": Field("min_calls", "calls", "fewer say nothing about the downstream"),
    "failures_in_a_row": Field("in_a_row", "calls", "failures that open the breaker where calls are few"),
    "window_ms": Field("window_ms", "ms, a length", "of each of the two windows in which calls are counted"),
    "open_ms": Field("open_ms", "ms, a length", "how long the breaker is open the first time"),
    "open_max_ms": Field("open_max_ms", "ms, a length", "how long it is open at most"),
    "probes": Field("probes", "calls", "under way at once while it is half open"),
    "probes_to_close": Field("probe_ok", "calls", "answered probes that close it: most of `probes`"),
    "ramp_ms": Field("ramp_ms", "ms, a length", "from nothing to the full rate by slow start"),
    "recover_ms": Field("recover_ms", "ms, a length", "from nothing to the full rate after 429s"),
    "cut": Field("cut", "share", "of the rate that a 429 leaves"),
    "retry_ratio": Field("retry_ratio", "retries", "that one answered call pays for"),
    "retry_floor_per_s": Field("retry_floor", "retries a second", "that time pays for"),
    "pause_max_ms": Field("pause_max_ms", "ms, a length", "a longer Retry-After is cut to this"),
    "as_set": Field("said", "JSON", "the limits as the operator wrote them"),
    "cold_rate": Field("cold", "share", "of its rate that a new or lost downstream starts with"),
    "least_rate": Field("f_min", "share", "of its rate that is always left, to notice that it is well again"),
    "cut_gap_ms": Field("cut_gap_ms", "ms, a length", "429s within it are one signal"),
    "throttle_pause_ms": Field("throttle_pause_ms", "ms, a length", "pause after a 429 that names no wait"),
    "cold_after_ms": Field("cold_after_ms", "ms, a length", "after a pause this long the rate starts from nothing"),
    "probe_min_ms": Field("probe_min_ms", "ms, a length", "the least time of a probe: it gets three usual latencies"),
    "probe_max_ms": Field("probe_max_ms", "ms, a length", "the most time of a probe; then another may be sent"),
    "retry_cap": Field("retry_cap", "retries", "that its budget saves up at most"),
    "sick_ratio": Field("sick_ratio", "share", "it is sick while so many calls fail: budget and brake bind"),
    "sick_ms": Field("sick_ms", "ms, a length", "and while the last failure is no older"),
    "brake_ms": Field("brake_ms", "ms, a length", "how long a sick downstream is braked at most"),
}
"""Names of a downstream's configuration: the fields `cfg` and `weights` (MessagePack) and `json` of its HASH."""

TABLES: Mapping[str, Mapping[str, Field]] = {
    "state": STATE,
    "call": CALL,
    "known": CALL,
    "config": CONFIG,
    "before": CONFIG,
}
"""The names that the Lua files give to these tables."""

ACCESS = re.compile(rf"\b({'|'.join(TABLES)})\.(\w+)")
"""`state.paused_until`"""
NEW_TABLE = re.compile(rf"\b({'|'.join(TABLES)}) = \{{([^{{}}]*)\}}")
"""`call = { fence = fence }`"""
KEY = re.compile(r"\b(\w+)(?= = )")


def with_stored_names(lua: str) -> str:
    """The Lua text with each field's stored name in place of its word. Raises KeyError for a word that is not listed."""

    def stored(table: str, word: str) -> str:
        return TABLES[table][word].stored

    def new_table(found: re.Match[str]) -> str:
        keys = KEY.sub(lambda key: stored(found[1], key[1]), found[2])
        return f"{found[1]} = {{{keys}}}"

    return ACCESS.sub(lambda found: f"{found[1]}.{stored(found[1], found[2])}", NEW_TABLE.sub(new_table, lua))
