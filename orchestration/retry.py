"""Given a failure, decide: put the step back with a jittered wait, or make it a dead letter."""

from __future__ import annotations

import random

from schemas.failure import Failure
from schemas.policy import NEVER_RETRIED, RetryConfig
from schemas.step import DeadLetter, Defer


def backoff_ms(config: RetryConfig, attempt: int, rng: random.Random) -> int:
    """The wait before retry number `attempt` + 1 (so `attempt` is 0 after the first failure); formula in `RetryConfig`."""
    ceiling_s = min(config.cap_s, config.base_s * config.backoff_factor**attempt)
    return int(1000 * (rng.uniform(0, ceiling_s) if config.jitter == "full" else ceiling_s))


def decide(config: RetryConfig, failure: Failure, attempt: int, rng: random.Random) -> Defer | DeadLetter:
    """`attempt` counts the failures before this one.

    A `Retry-After` is a floor, and jitter comes on top of it: obeying it to the millisecond would wake every throttled
    sibling at once.
    """
    retriable = failure.kind in config.retry_on and failure.kind not in NEVER_RETRIED
    if not retriable or attempt >= config.max_retries:
        return DeadLetter(failure=failure)
    wait_ms = backoff_ms(config, attempt, rng)
    if failure.retry_after_ms is not None:
        wait_ms += failure.retry_after_ms
    reason = f"{failure.kind}: {failure.detail}"[:200]
    return Defer(after_ms=wait_ms, reason=reason, counts_as_attempt=True, failure=failure)
