"""RedisGate: decides with the coordinator whether a call may start now. One decision is one function call in Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import redis

from midwatch.orchestration.admission import script_calls
from midwatch.orchestration.admission.ancestry import ancestry_of, reserve_calls
from midwatch.orchestration.admission.answers import deferral, denial
from midwatch.orchestration.admission.configuration import configuration, defaults, over_defaults
from midwatch.orchestration.admission.functions import COORDINATOR
from midwatch.orchestration.admission.headers import read
from midwatch.orchestration.admission.names import resolve
from midwatch.orchestration.admission.replies import Admitted, Denied, Settled, Unconfigured, Waits
from midwatch.orchestration.admission.script_calls import Outcome
from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.keyspace import KEPT_S, Keyspace
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.protocol.calls import Call, Report, Settlement
from midwatch.orchestration.protocol.lineage import CallReservation, LimitReached
from midwatch.orchestration.store.records import member
from midwatch.orchestration.store.script_calls.script_call import ScriptCall
from midwatch.orchestration.store.script_library import Library
from midwatch.orchestration.store.scripts import ScriptPiggyback, Scripts
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.limits import Limits
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer, StepRef

log = get_logger("midwatch.gate")

HOLD_MS = 200
"""The worker itself waits up to this long, because to defer the step and claim it again would cost more."""

GRACE_MS = 15_000
"""How long a reservation is kept after the time limit of its call."""

WAKE_MS = 30_000
"""How long a woken step may start before others. Its message waits for a free worker during this time."""

BLOCK_MS = 3_600_000
"""How long a spend cap blocks a downstream before one call may try again. An operator can lift the block sooner."""

LINEAGE_SOFT = (5, 0.2, 1_000)
"""Retries of a lineage that start at once: 5, and 0.2 for each of its calls, and one each second."""
LINEAGE_HARD = (10, 1)
"""The most retries of a lineage: 10, and one for each of its calls. So n calls are made at most 2n + 10 times."""

OUTCOMES: Mapping[FailureKind, Outcome] = {
    FailureKind.RATE_LIMITED: "throttled",
    FailureKind.OVERLOADED: "failed",
    FailureKind.PROVIDER_ERROR: "failed",
    FailureKind.TIMEOUT: "failed",
    FailureKind.CONNECTION: "failed",
    FailureKind.QUOTA_EXHAUSTED: "blocked",
    FailureKind.INTERNAL: "unread",
}
"""Outcome by kind of failure. Any other kind is an error of the caller, and says nothing about the downstream."""


@dataclass
class RedisGate:
    """`ports.Gate` of a fleet. Thread-safe; one per process."""

    client: redis.Redis
    keys: Keyspace
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """The limits of `midwatch.toml`, by name or pattern. `version` is the time when they were written, in ms since 1970."""
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
        request = admission_of(call, self._keys(name, call))
        reply = self._scripts.run(request)
        if isinstance(reply, Unconfigured):
            self.configure(name)
            reply = self._scripts.run(request)
        match reply:
            case Admitted():
                self.sleep_ms(reply.hold_ms)
                return None
            case Denied():
                return denial(name, reply)
            case Waits():
                return deferral(call, name, reply)
        raise StoreUnavailable(f"the server lost the limits of {name!r} twice in a row; the step will be tried again")

    def settle(self, call: Call, report: Report) -> Settlement:
        """See `ports.Gate.settle`."""
        name = resolve(call.downstream, self.limits)
        try:
            settled = self._scripts.run(settlement_of(call, report, self._keys(name, call)))
        except StoreUnavailable as error:
            _log_lost(name, error)
            return Settlement(free=report.failure is not None, downstream=name)
        failure = report.failure
        if failure is not None and outcome_of(report) == "blocked":
            log.error("gate.blocked", downstream=name, detail=failure.detail[:200])
        return Settlement(
            closed_ms=settled.closed_ms, why=settled.why, free=settled.is_uncounted, downstream=name,
            earlier=settled.earlier, retry_after_ms=settled.retry_after_ms, in_trouble=settled.in_trouble,
        )  # fmt: skip

    def make_piggyback(self, call: Call, report: Report) -> ScriptPiggyback:
        """See `ports.Gate.make_piggyback`."""
        name = resolve(call.downstream, self.limits)
        settlement = settlement_of(call, report, self._keys(name, call))
        return self._scripts.piggyback(
            settlement, alone=partial(self.settle, call, report), lost=partial(_log_lost, name)
        )

    def leave_line(self, ref: StepRef, downstream: str) -> None:
        """See `ports.Gate.leave_line`."""
        keys = self.keys.downstream(resolve(downstream, self.limits))
        self._scripts.run(script_calls.gone(keys, call_ids=[call_id(ref)], in_line=True))

    def reserve_calls(self, reservation: CallReservation) -> Sequence[LimitReached | None]:
        """See `ports.Gate.reserve_calls`."""
        return reserve_calls(self._scripts, self.keys, reservation)

    def configure(self, name: str) -> None:
        """Configure the downstream with the limits of this process, unless it has newer ones."""
        is_set = name in self.limits
        limits = over_defaults(name, self.limits[name]) if is_set else defaults(name)
        text = configuration(name, limits, self.version if is_set else 0)
        keys = self.keys.downstream(name)
        self._scripts.run(script_calls.configure(keys, configuration=text, only_if_absent=not is_set))
        self._configured.add(name)

    def _keys(self, name: str, call: Call) -> list[str]:
        return [*self.keys.downstream(name), self.keys.lineage(call.claim.job.root_id)]


def call_id(ref: StepRef) -> str:
    """The name of a step's call in the scripts. A step makes one call at a time."""
    return f"{ref.job_id}|{ref.step}"


def admission_of(call: Call, keys: list[str]) -> ScriptCall[Admitted | Waits | Denied | Unconfigured]:
    """The script call that asks for the admission of a call."""
    claim, job = call.claim, call.claim.job
    is_retry = claim.attempt + claim.losses > 0
    free_retries, free_retries_per_call, free_retry_every_ms = LINEAGE_SOFT
    most_retries, most_retries_per_call = LINEAGE_HARD
    return script_calls.admit(
        keys,
        call_id=call_id(claim.ref),
        member=member(claim.ref),
        attempt_id=f"{claim.attempt}.{claim.losses}",
        is_retry=is_retry,
        is_first=claim.ref.step == "1" and job.parent is None and not is_retry,
        fence=claim.fence,
        input_tokens=call.input_tokens,
        cached_tokens=call.cached_tokens,
        output_tokens=call.output_tokens,
        hold_ms=HOLD_MS,
        lasts_ms=call.lasts_ms + GRACE_MS,
        priority=job.priority,
        tenant=job.tenant or "",
        free_retries=free_retries,
        free_retries_per_call=free_retries_per_call,
        free_retry_every_ms=free_retry_every_ms,
        most_retries=most_retries,
        most_retries_per_call=most_retries_per_call,
        lineage_kept_ms=KEPT_S * 1_000,
        lineage_input_tokens=call.lineage_input_tokens,
        lineage_output_tokens=call.lineage_output_tokens,
        ancestry=ancestry_of(claim, call.chain),
    )


def settlement_of(call: Call, report: Report, keys: list[str]) -> ScriptCall[Settled]:
    """The script call that reports the result of a call."""
    usage, failure, figures = _believable(call, report.usage), report.failure, read(report.headers)
    return script_calls.settle(
        keys,
        call_id=call_id(call.claim.ref),
        fence=call.claim.fence,
        outcome=outcome_of(report),
        input_tokens=usage.input_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        retry_after_ms=(failure and failure.retry_after_ms) or 0,
        latency_ms=report.latency_ms,
        headers=(figures.remaining, figures.limits) if figures else None,
        block_reason=failure.detail[:200] if failure else "",
        block_ms=BLOCK_MS,
    )


def outcome_of(report: Report) -> Outcome:
    """The outcome of a call. Without a connection it is `unreached`: it cost nothing, but the downstream has failed."""
    outcome: Outcome = "ok" if report.failure is None else OUTCOMES.get(report.failure.kind, "caller")
    if report.sent:
        return outcome
    return "unreached" if outcome == "failed" else "unsent"


def _believable(call: Call, usage: Usage | None) -> Usage | None:
    """Return the usage if it can be true. Otherwise return None, and the call is charged as it was reserved.

    An answer without input or output tokens, or with ten times the sent tokens, is a server's mistake. It must not change
    the sums.
    """
    if usage is None or not usage.reported:
        return None
    most_in, most_out = 10 * call.input_tokens + 10_000, 2 * call.output_tokens + 10_000
    is_sound = 0 < usage.input_tokens <= most_in and 0 < usage.output_tokens <= most_out
    return usage if is_sound and 0 <= usage.cached_tokens <= usage.input_tokens else None


def _log_lost(name: str, error: Exception) -> None:
    """Log a settlement that failed. The reservation expires by itself, so the step can go on."""
    log.warning("gate.settle_lost", downstream=name, error=str(error)[:200])
