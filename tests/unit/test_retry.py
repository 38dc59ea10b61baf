"""Retry or give up: the wait, its jitter, its minimum, and the last attempt."""

from __future__ import annotations

import random

import pytest

from midwatch.orchestration.protocol.calls import Settlement
from midwatch.orchestration.steps.retry import LONGEST_RETRY_AFTER_MS, TRIAL_S, backoff_ms, decide
from midwatch.schemas.failure import Failure, FailureKind, RetryAdvice
from midwatch.schemas.policy import NEVER_RETRIED, TRANSIENT, RetryConfig
from midwatch.schemas.step import DeadLetter, Defer, WaitOwner

RNG = random.Random(7)


def failure(kind=FailureKind.OVERLOADED, **fields):
    return Failure(kind=kind, detail="529", **fields)


def test_without_jitter_the_wait_grows_to_its_cap():
    """The wait is base x factor to the power of the attempt. It never exceeds the cap, however large the power."""
    config = RetryConfig(base_s=1.0, backoff_factor=3.0, cap_s=20.0, jitter="none", max_retries=100)
    assert [backoff_ms(config, attempt, RNG) for attempt in range(5)] == [1_000, 3_000, 9_000, 20_000, 20_000]
    assert backoff_ms(config, 99, RNG) == 20_000
    assert backoff_ms(config, 100_000, RNG) == 20_000, "an outage may have any number of failures"


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


# --- what a transient failure is


MISSION = RetryConfig(retry_on=["tool_error", "format_error"], fail_hard_on=["context_overflow", "auth_error"])


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_transient_kind_is_retried_whatever_retry_on_says(kind):
    """`retry_on` adds kinds to the transient ones. It takes none away."""
    for config in (MISSION, RetryConfig(retry_on=[])):
        assert isinstance(decide(config, failure(kind), 0, RNG), Defer)


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_kind_in_fail_hard_on_is_never_retried(kind):
    """It wins over the transient kinds, and over a downstream that is in trouble."""
    config = RetryConfig(retry_on=[], fail_hard_on=[kind])
    down = Settlement(free=True, downstream="jira", in_trouble=True)
    assert isinstance(decide(config, failure(kind), 0, RNG, down), DeadLetter)


def test_fail_hard_on_takes_kinds_away_from_the_default():
    """The other four stay. A kind that is written into both is refused."""
    config = RetryConfig(fail_hard_on=["overloaded"])
    assert isinstance(decide(config, failure(), 0, RNG), DeadLetter)
    assert isinstance(decide(config, failure(FailureKind.TIMEOUT), 0, RNG), Defer)
    with pytest.raises(ValueError, match="in both"):
        RetryConfig(retry_on=["overloaded"], fail_hard_on=["overloaded"])


@pytest.mark.parametrize("kind", ["tool_error", "format_error"])
def test_retry_on_adds_other_kinds(kind):
    """They count against `max_retries` as before."""
    assert decide(MISSION, failure(FailureKind(kind)), 2, RNG).counts_as_attempt
    assert isinstance(decide(MISSION, failure(FailureKind(kind)), 3, RNG), DeadLetter)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refused_request_is_not_sent_again(status):
    """The same words would be refused again. A reply that can't be read is another matter: the next one may be readable."""
    refused = Failure(kind=FailureKind.FORMAT_ERROR, detail="tools.0: unknown field", status=status)
    assert isinstance(decide(MISSION, refused, 0, RNG), DeadLetter)
    unreadable = refused.model_copy(update={"status": 200})
    assert isinstance(decide(MISSION, unreadable, 0, RNG), Defer)


# --- whose fault it is


def free(**fields):
    return Settlement(**{"free": True, "downstream": "jira", **fields})


def test_a_failure_of_the_downstream_has_no_last_retry():
    """It does not count, however many there were, and the step is held by the downstream."""
    for attempt, earlier in ((0, 0), (3, 500), (99, 100_000)):
        outcome = decide(RetryConfig(max_retries=0), failure(), attempt, RNG, free(earlier=earlier))
        assert isinstance(outcome, Defer)
        assert (outcome.counts_as_attempt, outcome.owner, outcome.downstream) == (False, WaitOwner.DOWNSTREAM, "jira")


def test_a_failure_that_counts_is_the_jobs_own():
    """So is every failure of a call that no coordinator has judged."""
    for settled in (Settlement(downstream="jira"), Settlement()):
        outcome = decide(RetryConfig(), failure(), 0, RNG, settled)
        assert (outcome.counts_as_attempt, outcome.owner, outcome.downstream) == (True, WaitOwner.JOB, None)


def test_the_backoff_grows_with_uncounted_failures():
    """The ceiling counts all failures of the step, up to the cap."""
    config = RetryConfig(jitter="none", base_s=1.0, cap_s=60.0)
    waits = [decide(config, failure(), 1, RNG, free(earlier=earlier)).after_ms for earlier in range(7)]
    assert waits == [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]


def test_the_backoff_is_short_while_the_downstream_is_in_trouble():
    """The coordinator spaces the calls. A lone job should find out within ten seconds that the downstream is back."""
    settled = free(earlier=30, in_trouble=True)
    waits = [decide(RetryConfig(cap_s=3_600), failure(), 0, RNG, settled).after_ms for _ in range(300)]
    assert 0.95 * TRIAL_S * 1_000 < max(waits) <= TRIAL_S * 1_000


def test_the_time_until_the_downstream_takes_calls_is_a_minimum():
    """A retry before that would only wait in line."""
    assert decide(RetryConfig(), failure(), 0, RNG, free(closed_ms=20_000)).after_ms == 20_000


def test_an_absurd_retry_after_is_cut():
    """With a coordinator to the downstream's `pause_max_s`, without one to a quarter of an hour."""
    month = failure(retry_after_ms=31 * 86_400_000)
    config = RetryConfig(jitter="none")
    assert decide(config, month, 0, RNG).after_ms == LONGEST_RETRY_AFTER_MS + 1_000
    assert decide(config, month, 0, RNG, free(retry_after_ms=60_000, closed_ms=60_000)).after_ms == 61_000


def test_a_slow_failure_waits_for_minutes():
    """A firewall's block is not over in seconds. The wait doubles from 30 s to 10 min, also in trouble."""
    config, settled = RetryConfig(jitter="none", cap_s=1.0), Settlement(free=True, downstream="x", in_trouble=True)
    slow = failure(FailureKind.PROVIDER_ERROR, advice=RetryAdvice.SLOW)
    waits = [decide(config, slow, attempt, RNG, settled).after_ms for attempt in (0, 1, 2, 3, 4, 5, 100_000)]
    assert waits == [30_000, 60_000, 120_000, 240_000, 480_000, 600_000, 600_000]
    jittered = [decide(RetryConfig(), slow, 0, RNG, settled).after_ms for _ in range(200)]
    assert 15_000 <= min(jittered) < 17_000
    assert 28_000 < max(jittered) <= 30_000


def test_a_last_failure_has_no_retries():
    """The server asked not to retry. Only a failure that the coordinator does not blame on the call is tried again."""
    last = failure(FailureKind.OVERLOADED, advice=RetryAdvice.LAST)
    assert decide(RetryConfig(), last, 0, RNG) == DeadLetter(failure=last)
    assert decide(RetryConfig(), last, 0, RNG, Settlement(downstream="x")) == DeadLetter(failure=last)
    assert decide(RetryConfig(), last, 9, RNG, Settlement(free=True, downstream="x")).after_ms >= 15_000
