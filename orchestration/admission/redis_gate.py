"""RedisGate: the coordinator. One script, one round trip and the server's time for every decision, fleet-wide."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import redis
import structlog

from midwatch.orchestration.admission.configuration import configuration, defaults, over_defaults
from midwatch.orchestration.admission.functions import FunctionLibrary
from midwatch.orchestration.admission.headers import Figures, read
from midwatch.orchestration.admission.names import resolve
from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.keyspace import KEPT_S, Keyspace
from midwatch.orchestration.protocol.calls import Call, Report, Settlement
from midwatch.orchestration.store.records import member
from midwatch.orchestration.store.scripts import Arg, Library, ScriptPiggyback, Scripts
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.limits import Limits
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer, StepRef

log = structlog.get_logger("midwatch.gate")

COORDINATOR = FunctionLibrary("midwatch.orchestration.admission", bare=("due",))

HOLD_MS = 200
"""A shorter wait is spent in the worker: it costs less than to give the step back and claim it again."""

GRACE_MS = 15_000
"""How long beyond the bound on its call a reservation is believed in."""

WAKE_MS = 30_000
"""How long a woken step has the right of way: its message waits for a free worker."""

SAFETY_MS = (30_000, 600_000)
"""When a step in a line asks again by itself, should nobody wake it: twice the expected wait, within these bounds."""

BLOCK_MS = 3_600_000
"""How long a spend cap shuts a downstream before one call may look again. An operator lifts it sooner."""

LINEAGE_SOFT = ("5", "0.2", 1_000)
"""Retries of a lineage without a wait: 5, and 0.2 for each call of it, and one each second."""
LINEAGE_HARD = (10, 1)
"""Retries of a lineage at all: 10, and one for each call of it; so n calls are made at most 2n + 10 times."""

DENIED = {
    "too_large": FailureKind.POLICY_DENIED,
    "lineage_retry_budget": FailureKind.BUDGET_EXCEEDED,
    "lineage_input_tokens": FailureKind.BUDGET_EXCEEDED,
    "lineage_output_tokens": FailureKind.BUDGET_EXCEEDED,
}

OUTCOMES = {
    FailureKind.RATE_LIMITED: "throttled",
    FailureKind.OVERLOADED: "failed",
    FailureKind.PROVIDER_ERROR: "failed",
    FailureKind.TIMEOUT: "failed",
    FailureKind.CONNECTION: "failed",
    FailureKind.QUOTA_EXHAUSTED: "blocked",
    FailureKind.INTERNAL: "unread",
}
"""Any other kind is the caller's own error: the downstream is well."""


@dataclass
class RedisGate:
    """`ports.Gate` of a fleet. Thread-safe; one per process."""

    client: redis.Redis
    keys: Keyspace
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """Of `midwatch.toml`, by name or pattern; `version` says when they were written, in ms since the epoch."""
    version: int = 0
    sleep_ms: Callable[[int], None] = lambda ms: None
    library: Library = COORDINATOR

    def __post_init__(self) -> None:
        self._scripts = Scripts(self.client, self.library)
        self._configured: set[str] = set()

    def admit(self, call: Call) -> Defer | Failure | None:
        """See `ports.Gate.admit`."""
        name = resolve(call.downstream, self.limits)
        if name not in self._configured:
            self.configure(name)
        reply = self._ask("admit", name, call, self._admit_args(call, name))
        if reply[0] == b"unconfigured":  # a new or wiped server
            self.configure(name)
            reply = self._ask("admit", name, call, self._admit_args(call, name))
        verdict, ms, reason = reply[0], int(reply[1]), reply[2].decode()
        if verdict == b"admit":
            self.sleep_ms(ms)
            return None
        if verdict == b"deny":
            return _denied(name, reason, ms)
        return _waits(call, name, reason, ms, in_line=bool(reply[3]))

    def settle(self, call: Call, report: Report) -> Settlement:
        """See `ports.Gate.settle`."""
        name = resolve(call.downstream, self.limits)
        try:
            reply = self._ask("settle", name, call, _settle_args(call, report))
        except StoreUnavailable as error:
            _lost(name, error)
            return Settlement()
        outcome = _outcome(report)
        if outcome == "blocked":
            log.error("gate.blocked", downstream=name, detail=report.failure.detail[:200] if report.failure else "")
        return Settlement(closed_ms=int(reply[1]), why=reply[2].decode(), free=bool(reply[3]))

    def settling(self, call: Call, report: Report) -> ScriptPiggyback:
        """See `ports.Gate.settling`."""
        name = resolve(call.downstream, self.limits)
        script = self._scripts.prepared("settle", self._keys(name, call.claim.job.root_id), _settle_args(call, report))
        return ScriptPiggyback(self.client, script, partial(self.settle, call, report), partial(_lost, name))

    def configure(self, name: str) -> None:
        """Make the downstream known with the limits of this process; newer ones stay."""
        explicit = name in self.limits
        limits = over_defaults(name, self.limits[name]) if explicit else defaults(name)
        json = configuration(name, limits, self.version if explicit else 0)
        self._scripts.call("configure", self._keys(name), (json, 0 if explicit else 1))
        self._configured.add(name)

    def _keys(self, name: str, root_id: str | None = None) -> list[str]:
        keys = self.keys.downstream(name)
        return [*keys, self.keys.lineage(root_id)] if root_id else keys

    def _ask(self, script: str, name: str, call: Call, args: tuple[Arg, ...]) -> list[bytes]:
        reply: list[bytes] = self._scripts.call(script, self._keys(name, call.claim.job.root_id), args)
        return reply

    def _admit_args(self, call: Call, name: str) -> tuple[Arg, ...]:
        claim, job = call.claim, call.claim.job
        return (
            call_id(call.claim.ref), member(claim.ref), f"{claim.attempt}.{claim.losses}",
            int(claim.attempt + claim.losses > 0), claim.fence,
            call.input_tokens, call.cached_tokens, call.output_tokens, HOLD_MS, call.lasts_ms + GRACE_MS,
            job.priority, job.tenant or "", *LINEAGE_SOFT, *LINEAGE_HARD, KEPT_S * 1_000,
            _said(call.lineage_input_tokens), _said(call.lineage_output_tokens),
        )  # fmt: skip


def call_id(ref: StepRef) -> str:
    """The name of a step's call in the scripts: a step makes one at a time."""
    return f"{ref.job_id}|{ref.step}"


def _lost(name: str, error: Exception) -> None:
    """The reservation expires by itself; the work in hand must not be lost for it."""
    log.warning("gate.settle_lost", downstream=name, error=str(error)[:200])


def _said(value: float | None) -> Arg:
    return "" if value is None else f"{value:.0f}"


def _waits(call: Call, name: str, reason: str, ms: int, *, in_line: bool) -> Defer:
    after_ms = max(SAFETY_MS[0], min(2 * ms, SAFETY_MS[1])) if in_line else ms
    deadline_ms = call.claim.job.deadline_ms
    if deadline_ms is not None:  # a job that waits ends in time, too
        after_ms = max(0, min(after_ms, deadline_ms - call.claim.now_ms + 1))
    about = f", about {math.ceil(ms / 1_000)} s" if ms else ""
    return Defer(after_ms=after_ms, reason=f"{name}: {reason}{about}", counts_as_attempt=False, wakes=in_line)


def _denied(name: str, reason: str, ms: int) -> Failure:
    why, _, said = reason.partition(": ")
    if why == "blocked":
        detail = f"{name} is blocked: {said}; `midwatch gate unblock {name}` lifts it"
        return Failure(kind=FailureKind.QUOTA_EXHAUSTED, detail=detail, retry_after_ms=ms)
    return Failure(kind=DENIED.get(why, FailureKind.INTERNAL), detail=f"{name}: {_explained(why, said.split())}")


def _explained(why: str, numbers: list[str]) -> str:
    match why, numbers:
        case "too_large", [resource, need, limit]:
            tokens = {"i": "input tokens", "o": "output tokens"}.get(resource, "tokens")
            return (
                f"one call needs {need} {tokens}, and the limit is {limit} a minute: raise the limit or shrink the call"
            )
        case "lineage_retry_budget", [used, calls]:
            return f"lineage_retry_budget: this root job and all it caused made {used} retries on {calls} calls"
        case "lineage_input_tokens" | "lineage_output_tokens", [used, need, limit]:
            return f"{why}: {used} tokens used, this call may use {need}, and the root job's limit is {limit}"
        case _:
            return f"{why} {' '.join(numbers)}"


def _outcome(report: Report) -> str:
    """A call that found no connection cost nothing, and is the downstream's failure all the same: `unreached`."""
    outcome = "ok" if report.failure is None else OUTCOMES.get(report.failure.kind, "caller")
    if report.sent:
        return outcome
    return "unreached" if outcome == "failed" else "unsent"


def _settle_args(call: Call, report: Report) -> tuple[Arg, ...]:
    usage, failure = _believed(call, report.usage), report.failure
    figures: Figures = read(report.headers)
    return (
        call_id(call.claim.ref), call.claim.fence, _outcome(report),
        *_tokens(usage),
        _said((failure and failure.retry_after_ms) or 0), report.latency_ms,
        *map(_said, figures.remaining), *map(_said, figures.limits),
        failure.detail[:200] if failure else "", BLOCK_MS,
    )  # fmt: skip


def _tokens(usage: Usage | None) -> tuple[Arg, Arg, Arg]:
    return (usage.input_tokens, usage.cached_tokens, usage.output_tokens) if usage else ("", "", "")


def _believed(call: Call, usage: Usage | None) -> Usage | None:
    """Usage that can be true, else None: the call is charged as it was reserved.

    An answer without input or output, or with ten times what was sent, is a server's mistake; the sum must not hang on it.
    """
    if usage is None or not usage.reported:
        return None
    most_in, most_out = 10 * call.input_tokens + 10_000, 2 * call.output_tokens + 10_000
    sound = 0 < usage.input_tokens <= most_in and 0 < usage.output_tokens <= most_out
    return usage if sound and 0 <= usage.cached_tokens <= usage.input_tokens else None
