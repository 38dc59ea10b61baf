"""Retry or give up: the wait, its jitter, its minimum, and the last attempt."""

from __future__ import annotations

import random

import pytest

from midwatch.orchestration.steps.retry import backoff_ms, decide
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.policy import NEVER_RETRIED, TRANSIENT, RetryConfig
from midwatch.schemas.step import DeadLetter, Defer

RNG = random.Random(7)


def failure(kind=FailureKind.OVERLOADED, **fields):
    return Failure(kind=kind, detail="529", **fields)


def test_without_jitter_the_wait_grows_to_its_cap():
    """The wait is base x factor to the power of the attempt. It never exceeds the cap, however large the power."""
    config = RetryConfig(base_s=1.0, backoff_factor=3.0, cap_s=20.0, jitter="none", max_retries=100)
    assert [backoff_ms(config, attempt, RNG) for attempt in range(5)] == [1_000, 3_000, 9_000, 20_000, 20_000]
    assert backoff_ms(config, 99, RNG) == 20_000


def test_full_jitter_fills_the_whole_range():
    """The wait is uniform from zero to the ceiling (AWS Architecture Blog, 2015), so that a fleet does not retry all at once."""
    config = RetryConfig(base_s=8.0, cap_s=60.0)
    waits = [backoff_ms(config, 0, RNG) for _ in range(2_000)]
    assert min(waits) < 200
    assert max(waits) > 7_800
    assert 3_700 < sum(waits) / len(waits) < 4_300


def test_a_retry_after_is_a_minimum():
    """The jitter is added to it. Without jitter all throttled steps would retry in the same millisecond."""
    waits = {decide(RetryConfig(), failure(retry_after_ms=20_000), 0, RNG).after_ms for _ in range(50)}
    assert min(waits) >= 20_000
    assert max(waits) <= 21_000
    assert len(waits) > 40


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_transient_failure_is_retried_and_counted(kind):
    """By default there are three retries."""
    outcome = decide(RetryConfig(), failure(kind), 2, RNG)
    assert isinstance(outcome, Defer)
    assert outcome.counts_as_attempt
    assert outcome.failure.kind is kind
    assert outcome.reason == f"{kind}: 529"


def test_after_the_last_retry_it_is_a_dead_letter():
    """max_retries=3 means four attempts, and 0 means one."""
    assert isinstance(decide(RetryConfig(max_retries=3), failure(), 3, RNG), DeadLetter)
    assert isinstance(decide(RetryConfig(max_retries=0), failure(), 0, RNG), DeadLetter)


@pytest.mark.parametrize("kind", sorted(set(FailureKind) - set(TRANSIENT)))
def test_any_other_failure_is_a_dead_letter_at_once(kind):
    """The agent's policy can change this."""
    assert decide(RetryConfig(), failure(kind), 0, RNG) == DeadLetter(failure=failure(kind))


@pytest.mark.parametrize("kind", NEVER_RETRIED)
def test_a_harmful_retry_is_never_made(kind):
    """A config that was built without its validation does not allow it either."""
    config = RetryConfig().model_copy(update={"retry_on": (kind,)})
    assert isinstance(decide(config, failure(kind), 0, RNG), DeadLetter)


def test_a_reason_is_bounded():
    """Listings show the reason, so its length is limited."""
    long = Failure(kind=FailureKind.TIMEOUT, detail="x" * 5_000)
    assert len(decide(RetryConfig(), long, 0, RNG).reason) == 200
