"""Decide what follows a failure: put the step back with a jittered wait, or make it a dead letter."""

from __future__ import annotations

import random

from midwatch.orchestration.protocol.calls import Settlement
from midwatch.schemas.failure import Failure, FailureKind, RetryAdvice
from midwatch.schemas.policy import NEVER_RETRIED, TRANSIENT, RetryConfig
from midwatch.schemas.step import DeadLetter, Defer, WaitOwner

UNSETTLED = Settlement()

TRIAL_S = 10.0
"""The longest backoff while the downstream is in trouble. The coordinator spaces the calls of the fleet; a single job must not
wait longer than this to find out that the downstream is back."""

LONGEST_RETRY_AFTER_MS = 900_000
"""The longest `Retry-After` that is obeyed without a coordinator. With one, the downstream's `pause_max_s` decides."""

SLOW_S = (30.0, 600.0)
"""First and longest backoff after `RetryAdvice.SLOW` or `LAST`. A firewall's block lasts minutes, and each call may extend it."""

MOST_DOUBLINGS = 64
"""The backoff grows up to this exponent. It has reached every possible cap by then, and a larger one overflows a float."""


def is_retried(config: RetryConfig, kind: FailureKind) -> bool:
    """Is this kind of failure tried again? A transient kind is, unless `fail_hard_on` names it. `retry_on` adds others."""
    if kind in NEVER_RETRIED or kind in config.fail_hard_on:
        return False
    return kind in TRANSIENT or kind in config.retry_on


def backoff_ms(config: RetryConfig, attempt: int, rng: random.Random, at_most_s: float | None = None) -> int:
    """The wait before retry number `attempt` + 1 (so `attempt` is 0 after the first failure); formula in `RetryConfig`."""
    cap_s = config.cap_s if at_most_s is None else min(config.cap_s, at_most_s)
    ceiling_s = min(cap_s, config.base_s * config.backoff_factor ** min(attempt, MOST_DOUBLINGS))
    return int(1000 * (rng.uniform(0, ceiling_s) if config.jitter == "full" else ceiling_s))


def slow_backoff_ms(config: RetryConfig, attempt: int, rng: random.Random) -> int:
    """The wait before the next retry of a call that should not be hurried. It doubles, and its random part is one half."""
    first_s, longest_s = SLOW_S
    ceiling_s = min(longest_s, first_s * 2.0 ** min(attempt, MOST_DOUBLINGS))
    return int(1000 * (rng.uniform(ceiling_s / 2, ceiling_s) if config.jitter == "full" else ceiling_s))


def decide(
    config: RetryConfig, failure: Failure, attempt: int, rng: random.Random, settled: Settlement = UNSETTLED
) -> Defer | DeadLetter:
    """Decide between a retry and a dead letter. `attempt` is the number of earlier failures that count against `max_retries`.

    A failure that the coordinator does not blame on the call is tried again without a limit, and holds the step in the name of
    the downstream. The backoff grows with all failures of the step. `Retry-After` is a minimum, to which the jittered wait is
    added: otherwise all throttled steps would come back in the same millisecond. The time until the downstream takes calls
    again, which the coordinator reports, is a minimum too.

    A request that the provider refused for its form (a 400) is not sent again, because the same words would be refused again.
    `format_error` in `retry_on` is for replies that can't be read: the next one may be readable.

    A failure with `RetryAdvice.LAST` is not tried again, unless the coordinator does not blame it on the call: an outage whose
    answers forbid a retry still costs time, not jobs.
    """
    retries_left = attempt < config.max_retries and failure.advice is not RetryAdvice.LAST
    # A page with status 400 is a provider_error: another machine answered, so the request itself was not refused.
    refused = failure.kind is FailureKind.FORMAT_ERROR and failure.is_refused_request and failure.status is not None
    if refused or not is_retried(config, failure.kind) or not (retries_left or settled.free):
        return DeadLetter(failure=failure)
    tries = attempt + settled.earlier
    if failure.advice is None:
        wait_ms = backoff_ms(config, tries, rng, TRIAL_S if settled.in_trouble else None)
    else:
        wait_ms = slow_backoff_ms(config, tries, rng)
    if settled.downstream:
        wait_ms += settled.retry_after_ms
    else:
        wait_ms += min(failure.retry_after_ms or 0, LONGEST_RETRY_AFTER_MS)
    return Defer(
        after_ms=max(wait_ms, settled.closed_ms),
        reason=f"{failure.kind}: {failure.detail}"[:200],
        counts_as_attempt=not settled.free,
        failure=failure,
        owner=WaitOwner.DOWNSTREAM if settled.free else WaitOwner.JOB,
        downstream=settled.downstream if settled.free else None,
    )
