"""What the coordinator's replies mean to a step: a deferral while the call waits, a failure when it is denied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from midwatch.orchestration.admission.replies import RESOURCE_NAMES, Denied, Waits
from midwatch.orchestration.protocol.calls import Call
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.step import Defer, WaitOwner

SAFETY_MS = (30_000, 600_000)
"""Bounds of the time after which a step in a line asks again without a wake-up. The time is twice the expected wait."""

DENIED = {
    "too_large": FailureKind.POLICY_DENIED,
    "lineage_retry_budget": FailureKind.BUDGET_EXCEEDED,
    "lineage_input_tokens": FailureKind.BUDGET_EXCEEDED,
    "lineage_output_tokens": FailureKind.BUDGET_EXCEEDED,
    "lineage_steps": FailureKind.BUDGET_EXCEEDED,
}

LIMITS = {
    "lineage_input_tokens": "max_input_tokens",
    "lineage_output_tokens": "max_output_tokens",
    "lineage_steps": "max_steps",
}
"""The field of `RunLimits` that a reason stands for."""


def deferral(call: Call, name: str, reply: Waits) -> Defer:
    """The step waits for the downstream. That never counts as an attempt. The store bounds the wait by the job's limits."""
    shortest, longest = SAFETY_MS
    after_ms = max(shortest, min(2 * reply.ms, longest)) if reply.in_line else reply.ms
    about = f", about {math.ceil(reply.ms / 1_000)} s" if reply.ms else ""
    guessed = (
        f" (limit guessed: {reply.guessed:,} a minute)" if reply.guessed and reply.reason in ("rate", "queued") else ""
    )
    reason = f"{name}: {reply.reason}{about}{guessed}"
    return Defer(
        after_ms=after_ms, reason=reason, counts_as_attempt=False, wakes=reply.in_line, owner=WaitOwner.DOWNSTREAM,
        downstream=name,
    )  # fmt: skip


def denial(name: str, reply: Denied) -> Failure:
    """The step fails: waiting would not help."""
    if reply.reason == "blocked":
        detail = f"{name} is blocked: {reply.figures['why']}; `midwatch gate unblock {name}` lifts it"
        return Failure(kind=FailureKind.QUOTA_EXHAUSTED, detail=detail, retry_after_ms=reply.ms)
    kind = DENIED.get(reply.reason, FailureKind.INTERNAL)
    limit = LIMITS.get(reply.reason)
    if limit and "job" in reply.figures:
        return Failure(kind=kind, detail=f"{limit}: {_explain_reached_limit(reply.figures)}", limit=limit)
    return Failure(kind=kind, detail=f"{name}: {_explanation(reply.reason, reply.figures)}", limit=limit)


def _explain_reached_limit(figures: Mapping[str, Any]) -> str:
    """Whose limit a job of a lineage has reached."""
    job_id, used, limit = figures["job"], figures["used"], figures["limit"]
    if "need" not in figures:
        return f"job {job_id} and its descendants took {used} model turns, and its limit is {limit}"
    need = figures["need"]
    return f"job {job_id} and its descendants used {used} tokens, this call may use {need}, and its limit is {limit}"


def _explanation(reason: str, figures: Mapping[str, Any]) -> str:
    match reason, figures:
        case "too_large", {"resource": letter, "need": need, "limit": limit}:
            tokens = RESOURCE_NAMES[letter].replace("_", " ")
            return (
                f"one call needs {need} {tokens}, and the limit is {limit} a minute: raise the limit or shrink the call"
            )
        case "lineage_retry_budget", {"retries": retries, "calls": calls}:
            return f"lineage_retry_budget: this root job and the jobs it caused made {retries} retries on {calls} calls"
        case "lineage_input_tokens" | "lineage_output_tokens", {"used": used, "need": need, "limit": limit}:
            return f"{reason}: {used} tokens used, this call may use {need}, and the root job's limit is {limit}"
        case _:
            return f"{reason} {' '.join(f'{name}={figure}' for name, figure in figures.items())}".strip()
