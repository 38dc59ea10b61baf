"""Legend: every field that the coordinator keeps in Redis, with its unit and meaning.

The Lua files and `configuration.py` write a field by its word: `state.paused_until`. In Redis it has a short name: `pu`. The
short names must stay, because two releases share one state while a fleet is upgraded. So `with_stored_names` puts them in
place of the words when the library is loaded. A word that is not listed here is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from midwatch.orchestration.admission.legend_of_configuration import CONFIG, Field

RESOURCES = {"requests": "q", "input_tokens": "i", "output_tokens": "o", "tokens": "t"}
"""The limited resources, and the letter of each in stored tables. `tokens` is input and output together."""

CALL_STATES = {
    "WAITING": "w",  # in a line
    "WOKEN": "k",  # may start before other calls
    "LIVE": "l",  # admitted, its tokens taken
    "PACED": "p",  # a retry that has a start time and its share of the retry budget
    "FAILED": "f",  # its last call failed, and it has not asked again
}

LANES = {
    "HIGH_LANE": "h",
    "REST_LANE": "n",
    "RETRY_LANE": "r",
    "HIGH_FIRST_LANE": "hf",
    "REST_FIRST_LANE": "nf",
    "REPLAY_LANE": "ny",
}
"""The second letter is the field `behind` of a call's record. Earlier releases read only the first."""

STATE = {
    "name": Field("name", "text", "the downstream"),
    "refilled_at": Field("ts", "us", "when the buckets and the retry budget were last refilled"),
    "level": Field("lv", "by resource", "what is left in each bucket; below 0 it is a debt"),
    "promised": Field("wk", "by resource", "what is reserved for woken calls; absent: nothing"),
    "learned": Field("lim", "by resource, a minute", "limits from the provider's headers, or guessed; absent: none"),
    "guessed": Field("guess", "bool", "the learned request limit was guessed from 429s"),
    "braked_to": Field("cap", "requests a minute", "the rate that the brake allows; absent: no brake"),
    "woken": Field("wn", "calls", "calls that were woken and have not started yet"),
    "virtual_time": Field("v", "us, virtual", "the virtual start of the last call that left a line"),
    "time_behind": Field("vb", "us, virtual", "`virtual_time` of the lanes of first calls and replays; absent: 0"),
    "in_line": Field("nq", "calls", "calls in all lines"),
    "next_expiry_at": Field("nx", "us", "when the next record of a call expires"),
    "rate": Field("f", "share", "the share of the limits that was allowed at `rate_since`"),
    "rate_threshold": Field("th", "share", "the share below which the rate climbs fast (slow start)"),
    "rate_since": Field("ft", "us", "since when the rate climbs"),
    "cut_at": Field("fc", "us", "when the last 429 cut the rate"),
    "paused_until": Field("pu", "us", "the end of the pause: no call is admitted before it"),
    "blocked_until": Field("bu", "us", "the end of the block: every call is denied before it"),
    "block_reason": Field("br", "text", "why the downstream is blocked, at most 200 bytes"),
    "passed": Field("pp", "by resource", "what answered calls used since `passed_since`; absent: nothing"),
    "passed_since": Field(
        "ps", "us", "when `passed` began: at most half a minute ago, or no call was answered since; absent: 0"
    ),
    "passed_before": Field("pq", "by resource", "what they used in the half minute before that; absent: nothing"),
    "evidence": Field("ev", "logarithm", "how much speaks for an exceeded limit, against stray 429s; absent: 0"),
    "risen": Field("rn", "calls", "calls that began since `evidence` was last 0; absent: 0"),
    "risen_refused": Field("rr", "calls", "429s since then; absent: 0"),
    "stray_share": Field("ss", "share", "the share of calls that get a 429 at any rate; absent: not measured"),
    "tested": Field("ct", "calls", "calls that began since the last cut; absent: the cut is no longer tested"),
    "tested_refused": Field("cr", "calls", "calls of `tested` that got a 429"),
    "share_before": Field("cs", "share", "the share of 429s before the last cut; absent: as `tested`"),
    "limit_before": Field("cl", "requests a minute", "the guess before the last cut; 0: none; absent: as `tested`"),
    "pressed_ms": Field("gp", "ms, a length", "how long calls have waited for the guessed limit; absent: 0"),
    "breaker": Field("cb", "number", "0 closed, 1 open, 2 half open"),
    "open_until": Field("cu", "us", "when an open breaker becomes half open"),
    "openings_in_a_row": Field(
        "ck", "openings", "openings since it was last closed: each is longer than the one before"
    ),
    "openings": Field("g", "openings", "all openings: calls that were admitted before the last one no longer count"),
    "failed_in_a_row": Field("cf", "calls", "calls that failed since the last answer"),
    "next_probe_at": Field("pa", "us", "the time before which the first probe is not sent"),
    "probes_answered": Field("pk", "calls", "probes answered since the breaker is half open"),
    "probes_failed": Field("px", "calls", "probes failed since the breaker is half open; absent: none"),
    "probe_deadlines": Field("pl", "list of us", "when each probe under way is given up; absent: none"),
    "window_since": Field("ws", "us", "when the current window began"),
    "window_ok": Field("wo", "calls", "calls answered in the current window"),
    "window_failed": Field("wf", "calls", "calls failed in the current window"),
    "window_before_ok": Field("po", "calls", "calls answered in the window before"),
    "window_before_failed": Field("pf", "calls", "calls failed in the window before"),
    "span_since": Field("gs", "us", "when the current span of counted calls began; absent: no call yet"),
    "span_begun": Field("wg", "calls", "calls admitted in the current span; absent: 0"),
    "span_refused": Field("wr", "calls", "429s in the current span; absent: 0"),
    "span_before_since": Field("gb", "us", "when the span before began; absent: there was none"),
    "span_before_begun": Field("pg", "calls", "calls admitted in the span before; absent: 0"),
    "span_before_refused": Field("pr", "calls", "429s in the span before; absent: 0"),
    "failed_at": Field("lf", "us", "when a call last failed"),
    "second": Field("w", "s", "the current second, since 1970"),
    "second_begun": Field("wa", "calls", "calls admitted in the current second"),
    "second_failed": Field("wb", "calls", "failed calls of `second_begun`"),
    "second_before_begun": Field("pw", "calls", "calls admitted in the second before"),
    "second_before_failed": Field("pb", "calls", "failed calls of `second_before_begun`"),
    "sick_since": Field("sk", "us", "since when the downstream is sick (`sick_ratio`); absent: it is not"),
    "rate_before_sick": Field("sr", "requests a minute", "the full rate before `sick_since`; absent: not sick"),
    "retry_balance": Field("rb", "retries", "what is left of the downstream's retry budget"),
    "latency_ms": Field("la", "ms, a length", "the usual time of a call: a moving average"),
    "output_p90": Field("p9", "tokens", "the running 90th percentile of a call's output"),
    "unanswered": Field("tf", "calls", "calls that failed or were throttled since the last answer; absent: none"),
    "unanswered_ever": Field("nt", "calls", "all calls that failed or were throttled; absent: none"),
    "troubled_since": Field("tb", "us", "since when the downstream is in trouble; absent: it is not"),
    "trials": Field("tr", "calls", "calls admitted since then"),
    "admitted_at": Field("ta", "us", "when a call was last admitted"),
    "woken_at": Field("tw", "us", "when a waiting call was last woken"),
    "admitted": Field("na", "calls", "all admitted calls"),
    "answered": Field("no", "calls", "all answered calls"),
    "live": Field("live", "calls", "calls that are admitted and not settled"),
}
"""Names of a downstream's state: the field `st` of its HASH."""

CALL = {
    "state": Field("s", "letter", "see CALL_STATES"),
    "member": Field("m", "text", "the step, as a steward publishes it"),
    "attempt_id": Field("y", "attempt.losses", "the attempt that makes the call: a lineage pays once for each attempt"),
    "uncounted": Field("fr", "bool", "the call's last failure did not count against `max_retries`"),
    "counted": Field("fc", "bool", "the call's last failure counts against `max_retries`"),
    "past": Field("pt", "table", "the call's earlier failures: see PAST; absent: none"),
    "fence": Field("fe", "number", "the fence of the claim that made a live call"),
    "input": Field("i", "tokens", "input reserved"),
    "output": Field("o", "tokens", "output reserved"),
    "lane": Field("lane", "letter", "the line it waits in: see LANES"),
    "behind": Field("bh", "letter", "the second letter of its lane: see LANES; absent: the lane has one letter"),
    "tag": Field("tag", "us, virtual", "its place in the line: the virtual start"),
    "headroom": Field("hr", "share", "the share of each bucket that the call leaves to higher priorities"),
    "reason": Field("w", "word", "why the call waits, while it waits"),
    "second": Field("w", "s", "the second in which the call was admitted, while it is live"),
    "starts_at": Field("at", "us", "when a paced or a held call may start; when a woken call was woken"),
    "generation": Field("g", "openings", "`openings` when the call was admitted"),
    "probe_deadline": Field("p", "us", "when this probe is given up; absent: the call is no probe"),
    "is_trial": Field("tr", "bool", "the downstream was in trouble, or its breaker open, when the call was admitted"),
    "lineage": Field("root", "key", "the key of the call's lineage; absent: no tokens are reserved there"),
    "reserved_input": Field("li", "tokens", "input reserved in the call's lineage"),
    "reserved_output": Field("lo", "tokens", "output reserved in the call's lineage"),
    "suffixes": Field(
        "lx", "list of text", "suffixes of the fields of its lineage that count its tokens; absent: only the root's"
    ),
}
"""Names of a call's record: its entry in the HASH `calls`."""

PAST = {
    "failures": Field("n", "calls", "calls of the step that failed or were throttled"),
    "uncounted": Field("u", "calls", "calls of them that did not count against `max_retries`"),
    "answered": Field("a", "calls", "all answered calls of the downstream, when this call last failed"),
    "unanswered": Field("l", "calls", "all calls of the downstream that failed or were throttled, at the same moment"),
    "alone": Field("o", "failures", "failures in a row at which other calls were answered"),
}
"""Names of a call's earlier failures: the field `past` of its record."""

LINEAGE = {
    "calls": Field("n", "calls", "admitted calls"),
    "retries": Field("u", "retries", "retries that the lineage has paid for"),
    "uncounted_retries": Field("uu", "retries", "retries of them, after failures that do not count against a call"),
    "since": Field("t", "us", "when the lineage was first counted"),
    "reserved_input": Field("ri", "tokens", "input reserved by live calls"),
    "reserved_output": Field("ro", "tokens", "output reserved by live calls"),
    "used_input": Field("ui", "tokens", "input used"),
    "used_output": Field("uo", "tokens", "output used"),
    "most_input": Field("bi", "tokens", "input that the lineage may use; 0: any number"),
    "most_output": Field("bo", "tokens", "output that the lineage may use; 0: any number"),
}
"""Names of a lineage's record: the fields of its HASH."""

OWN = {
    "steps": Field("n", "turns", "turns that the job has begun"),
    "calls": Field("c", "calls", "tool calls that the job has made or reserved, without calls that start a child"),
    "tools": Field("t", "calls by tool", "calls of each tool that the job has made or reserved"),
    "children": Field("w", "jobs", "children that its calls have started or reserved"),
    "adopted": Field("a", "set of ids", "children that producers enqueued"),
    "turn": Field("k", "number", "the turn of the last reservation; absent: it has reserved no calls yet"),
    "before": Field("b", "calls by tool", "calls of each tool before that turn"),
    "fence": Field("f", "number", "the fence of the claim that asked last; an older claim reserves nothing"),
    "limits": Field("l", "limits", "the job's limits, by the names of BOUNDS; absent: not known"),
}
"""Names of what a job of a lineage has used: the field `j:<job>` of the lineage's HASH."""

SUM = {
    "steps": Field("n", "turns", "turns begun by the job and its descendants"),
    "calls": Field("c", "calls", "tool calls that they have made or reserved"),
    "tools": Field("t", "calls by tool", "calls of each tool that they have made or reserved"),
}
"""Names of what a job and its descendants have used: the field `s:<job>` of the lineage's HASH."""

BOUNDS = {
    "steps": Field("s", "turns", "max_steps"),
    "calls": Field("c", "calls", "max_tool_calls, if it is a number"),
    "tools": Field("t", "calls by tool", "max_tool_calls, if it names tools"),
    "input": Field("i", "tokens", "max_input_tokens"),
    "output": Field("o", "tokens", "max_output_tokens"),
    "children": Field("w", "jobs", "max_children"),
}
"""Names of the limits of a job that bind its descendants too."""

TABLES: Mapping[str, Mapping[str, Field]] = {
    "state": STATE,
    "call": CALL,
    "known": CALL,
    "past": PAST,
    "config": CONFIG,
    "before": CONFIG,
    "own": OWN,
    "sum": SUM,
    "bounds": BOUNDS,
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
