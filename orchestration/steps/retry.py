"""Decide what follows a failure: put the step back with a jittered wait, or make it a dead letter."""

from __future__ import annotations

import random

from midwatch.orchestration.protocol.calls import Settlement
from midwatch.schemas.failure import Failure
from midwatch.schemas.policy import NEVER_RETRIED, RetryConfig
from midwatch.schemas.step import DeadLetter, Defer

UNSETTLED = Settlement()


def backoff_ms(config: RetryConfig, attempt: int, rng: random.Random) -> int:
    """The wait before retry number `attempt` + 1 (so `attempt` is 0 after the first failure); formula in `RetryConfig`."""
    ceiling_s = min(config.cap_s, config.base_s * config.backoff_factor**attempt)
    return int(1000 * (rng.uniform(0, ceiling_s) if config.jitter == "full" else ceiling_s))


def decide(
    config: RetryConfig, failure: Failure, attempt: int, rng: random.Random, settled: Settlement = UNSETTLED
) -> Defer | DeadLetter:
    """Decide between a retry and a dead letter. `attempt` is the number of earlier failures that count against `max_retries`.

    A 429 and a failed probe of the breaker don't count. `Retry-After` is a minimum, to which the jittered wait is added:
    otherwise all throttled steps would come back in the same millisecond. The time until the downstream takes calls again,
    which the coordinator reports, is a minimum too.
    """
    retriable = failure.kind in config.retry_on and failure.kind not in NEVER_RETRIED
    if not retriable or (attempt >= config.max_retries and not settled.free):
        return DeadLetter(failure=failure)
    wait_ms = backoff_ms(config, attempt, rng)
    if failure.retry_after_ms is not None:
        wait_ms += failure.retry_after_ms
    reason = f"{failure.kind}: {failure.detail}"[:200]
    return Defer(
        after_ms=max(wait_ms, settled.closed_ms), reason=reason, counts_as_attempt=not settled.free, failure=failure
    )
