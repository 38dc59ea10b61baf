"""The coordinator's functions, typed: one Python function for each Lua file.

Its keyword arguments are the file's ARGV, by the same names and in the same order (a test compares them). It sends nothing:
it returns a `ScriptCall`, which `Scripts` sends alone, in a pipeline, or along with another script.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from midwatch.orchestration.admission import replies
from midwatch.orchestration.admission.legend import RESOURCES
from midwatch.orchestration.protocol.lineage import LimitReached
from midwatch.orchestration.store.script_calls.script_call import Arg, ScriptCall
from midwatch.schemas.limits import DownstreamStatus
from midwatch.schemas.step import Priority

Outcome = Literal["ok", "throttled", "failed", "unreached", "caller", "unsent", "blocked", "unread"]
"""The outcome of a call: see `lua/settle.lua`."""

Operation = Literal["pause", "resume", "open", "close", "block", "unblock"]

Figures = Mapping[str, float]
"""Figures by resource: see `legend.RESOURCES`."""


def admit(
    keys: Sequence[str],
    *,
    call_id: str,
    member: str,
    attempt_id: str,
    is_retry: bool,
    is_first: bool,
    fence: int,
    input_tokens: int,
    cached_tokens: int,
    output_tokens: int,
    hold_ms: int,
    lasts_ms: int,
    priority: Priority,
    tenant: str,
    free_retries: float,
    free_retries_per_call: float,
    free_retry_every_ms: int,
    most_retries: float,
    most_retries_per_call: float,
    lineage_kept_ms: int,
    lineage_input_tokens: int | None,
    lineage_output_tokens: int | None,
    ancestry: str,
) -> ScriptCall[replies.Admitted | replies.Waits | replies.Denied | replies.Unconfigured]:
    """May this call start now? `keys` are a downstream's and its lineage's."""
    args = (
        call_id, member, attempt_id, is_retry, is_first, fence, input_tokens, cached_tokens, output_tokens, hold_ms, lasts_ms,
        priority, tenant, free_retries, free_retries_per_call, free_retry_every_ms, most_retries, most_retries_per_call,
        lineage_kept_ms, lineage_input_tokens, lineage_output_tokens, ancestry,
    )  # fmt: skip
    return ScriptCall("admit", keys, _encoded(*args), replies.decode_admit)


def settle(
    keys: Sequence[str],
    *,
    call_id: str,
    fence: int,
    outcome: Outcome,
    input_tokens: int | None,
    cached_tokens: int | None,
    output_tokens: int | None,
    retry_after_ms: int,
    latency_ms: int,
    headers: tuple[Figures, Figures] | None,
    block_reason: str,
    block_ms: int,
) -> ScriptCall[replies.Settled]:
    """Report the result of an admitted call. `headers` has the remaining amounts and the limits. `keys` are as for `admit`."""
    args = _encoded(
        call_id, fence, outcome, input_tokens, cached_tokens, output_tokens, retry_after_ms, latency_ms,
        _encoded_headers(*headers) if headers else None, block_reason, block_ms,
    )  # fmt: skip
    return ScriptCall("settle", keys, args, replies.decode_settle)


def release(keys: Sequence[str], *, at_most: int, wake_ms: int) -> ScriptCall[replies.Released]:
    """Wake waiting calls that may start now."""
    return ScriptCall("release", keys, _encoded(at_most, wake_ms), replies.decode_release)


def configure(keys: Sequence[str], *, configuration: str, only_if_absent: bool) -> ScriptCall[bool]:
    """Set a downstream's limits. Returns False if newer ones are in force: they stay."""
    return ScriptCall("configure", keys, _encoded(configuration, only_if_absent), bool)


def control(keys: Sequence[str], *, operation: Operation, length_ms: int, reason: str) -> ScriptCall[bool]:
    """Carry out an operator's command. Returns False if the downstream was never called or configured."""
    return ScriptCall("control", keys, _encoded(operation, length_ms, reason), bool)


def due(index: str, *, at_most: int) -> ScriptCall[replies.Due]:
    """Find the downstreams whose lines a steward should check now."""
    return ScriptCall("due", [index], _encoded(at_most), replies.decode_due)


def gone(keys: Sequence[str], *, call_ids: Sequence[str], in_line: bool) -> ScriptCall[int]:
    """Forget calls whose step does not wait any more: woken ones, and with `in_line` also those that wait in line.

    Returns how many were forgotten.
    """
    return ScriptCall("gone", keys, _encoded(json.dumps(call_ids), int(in_line)), int)


def reserve_calls(
    keys: Sequence[str], *, ancestry: str, calls: str, counted: str, kept_ms: int
) -> ScriptCall[Sequence[LimitReached | None] | None]:
    """Reserve the calls of a turn. Returns the limit that each would exceed. None if a later claim has reserved calls."""
    return ScriptCall("reserve_calls", keys, _encoded(ancestry, calls, counted, kept_ms), replies.decode_reserve_calls)


def adopt(
    keys: Sequence[str], *, ancestry: str, child: str, is_added: bool, most_if_unknown: int, kept_ms: int
) -> ScriptCall[int]:
    """Count a child that a producer enqueues. Returns -1, or the limit of children that it would exceed."""
    return ScriptCall("adopt", keys, _encoded(ancestry, child, is_added, most_if_unknown, kept_ms), int)


def status(keys: Sequence[str]) -> ScriptCall[DownstreamStatus | None]:
    """Read the state of a downstream. None if it was never called or configured."""
    return ScriptCall("status", keys, (), replies.decode_status)


def _encoded(*values: str | float | None) -> tuple[Arg, ...]:
    # Most values are sent unchanged. This test saves a function call for each of them.
    return tuple([value if type(value) is int or type(value) is str else _encode(value) for value in values])


def _encode(value: str | float | None) -> Arg:
    """Encode an argument: None as an empty text, a bool as 0 or 1, a fraction without an exponent."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.12g}"
    return int(value) if isinstance(value, bool) else value


def _encoded_headers(remaining: Figures, limits: Figures) -> str:
    parts = {"remaining": remaining, "limits": limits}
    return json.dumps({part: {RESOURCES[name]: n for name, n in figures.items()} for part, figures in parts.items()})
