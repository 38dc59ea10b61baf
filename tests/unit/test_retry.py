"""Try again, or give up: the wait, its jitter, its floor, its end."""

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
    """base x factor to the power of the attempt, never beyond the cap, however large the power."""
    config = RetryConfig(base_s=1.0, backoff_factor=3.0, cap_s=20.0, jitter="none", max_retries=100)
    assert [backoff_ms(config, attempt, RNG) for attempt in range(5)] == [1_000, 3_000, 9_000, 20_000, 20_000]
    assert backoff_ms(config, 99, RNG) == 20_000


def test_full_jitter_fills_the_whole_range():
    """Uniform from nothing to the ceiling (AWS Architecture Blog, 2015): a fleet must not come back in one breath."""
    config = RetryConfig(base_s=8.0, cap_s=60.0)
    waits = [backoff_ms(config, 0, RNG) for _ in range(2_000)]
    assert min(waits) < 200
    assert max(waits) > 7_800
    assert 3_700 < sum(waits) / len(waits) < 4_300


def test_what_the_provider_asks_for_is_a_floor():
    """And the jitter comes on top: obeyed to the millisecond it would wake every throttled sibling at once."""
    waits = {decide(RetryConfig(), failure(retry_after_ms=20_000), 0, RNG).after_ms for _ in range(50)}
    assert min(waits) >= 20_000
    assert max(waits) <= 21_000
    assert len(waits) > 40


@pytest.mark.parametrize("kind", TRANSIENT)
def test_what_time_cures_is_tried_again_and_counts(kind):
    """By default, three times."""
    outcome = decide(RetryConfig(), failure(kind), 2, RNG)
    assert isinstance(outcome, Defer)
    assert outcome.counts_as_attempt
    assert outcome.failure.kind is kind
    assert outcome.reason == f"{kind}: 529"


def test_after_the_last_retry_it_is_a_dead_letter():
    """max_retries=3 is four attempts; 0 is one."""
    assert isinstance(decide(RetryConfig(max_retries=3), failure(), 3, RNG), DeadLetter)
    assert isinstance(decide(RetryConfig(max_retries=0), failure(), 0, RNG), DeadLetter)


@pytest.mark.parametrize("kind", sorted(set(FailureKind) - set(TRANSIENT)))
def test_everything_else_is_a_dead_letter_at_once(kind):
    """Unless the agent says otherwise."""
    assert decide(RetryConfig(), failure(kind), 0, RNG) == DeadLetter(failure=failure(kind))


@pytest.mark.parametrize("kind", NEVER_RETRIED)
def test_what_harms_when_repeated_is_never_repeated(kind):
    """Not even by a config that was made around its own check."""
    config = RetryConfig().model_copy(update={"retry_on": (kind,)})
    assert isinstance(decide(config, failure(kind), 0, RNG), DeadLetter)


def test_a_reason_is_bounded():
    """It is shown in listings."""
    long = Failure(kind=FailureKind.TIMEOUT, detail="x" * 5_000)
    assert len(decide(RetryConfig(), long, 0, RNG).reason) == 200
