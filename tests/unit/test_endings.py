"""How jobs end without success: the message, and what is kept."""

from __future__ import annotations

import pytest

from midwatch import Agent, RunLimits
from midwatch.orchestration.steps import endings
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import Holder, JobStatus
from midwatch.schemas.model import Usage
from midwatch.schemas.step import StepKind
from midwatch.schemas.trace import TraceRecord
from tests.unit.claims import claim_of, tool_call

FAILURE = Failure(kind=FailureKind.PROVIDER_ERROR, detail="503")


@pytest.mark.parametrize(
    ("ending", "kind", "limit", "says"),
    [
        ("cancelled", FailureKind.CANCELLED, None, "on request"),
        ("timed_out", FailureKind.TIMEOUT, "session_timeout_s", "session_timeout: not finished after 60 s"),
        ("deadline", FailureKind.TIMEOUT, "deadline_s", "deadline: not finished 90 s after it was enqueued"),
        ("max_wait", FailureKind.WAITED_TOO_LONG, "max_wait_s", "max_wait: held by others for 30 s"),
        ("expired", FailureKind.WAITED_TOO_LONG, "expires_s", "expired: no decision was made in time"),
        ("step_limit", FailureKind.BUDGET_EXCEEDED, "max_steps", "step_limit: 50 model turns"),
        ("worker_lost", FailureKind.WORKER_LOST, None, "3 times"),
    ],
)
def test_a_forced_ending_names_the_limit_that_was_reached(ending, kind, limit, says):
    """The failure has the limit's name in a field, and its number in the message."""
    claim = claim_of(ending=ending, losses=3, job_ends_by_ms=91_000, job_held_ms=30_000)
    failure = endings.failure_of_ending(claim)
    assert (failure.kind, failure.limit) == (kind, limit)
    assert says in failure.detail


@pytest.mark.parametrize(
    ("owner", "downstream", "says"),
    [
        ("downstream", "scripted:m-1", "at last by scripted:m-1 for 5 s"),
        ("human", None, "at last by a question to a human for 5 s"),
        ("child", None, "at last by a child job for 5 s"),
        ("session", None, "at last by a compaction of its session for 5 s"),
        ("workers", None, "at last by a lack of workers for 5 s"),
    ],
)
def test_a_wait_that_was_too_long_names_who_held_the_job(owner, downstream, says):
    """An operator must know where to look first."""
    holder = Holder(turn=1, owner=owner, downstream=downstream, since_ms=-3_000)
    assert endings.failure_of_ending(claim_of(ending="max_wait", job_holder=holder)).detail.endswith(says)


def test_a_job_that_no_worker_took_was_held_by_a_lack_of_workers():
    """A holder of an earlier turn is not the one that held the job last."""
    earlier = Holder(turn=1, owner="human", since_ms=0)
    for holder in (None, earlier):
        failure = endings.failure_of_ending(claim_of("2", ending="max_wait", job_holder=holder))
        assert failure.detail.endswith("at last by a lack of workers")


def test_only_a_cancelled_job_is_final():
    """There is no dead letter and no held session. Open calls are answered with the reason."""
    claim = claim_of(ending="cancelled")
    made = endings.make_ending(claim, endings.failure_of_ending(claim), dead_ms=5, worker="w1")
    assert (made.status, made.letter) == (JobStatus.CANCELLED, None)
    assert made.repair


ENDINGS = ["", "timed_out", "deadline", "max_wait", "expired", "step_limit", "worker_lost"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_any_other_ending_is_a_dead_letter_with_its_evidence(ending):
    """The letter has the failed step, the reason, the time, and every earlier attempt."""
    earlier = endings.earlier_tries(
        [
            trace("3.1", "defer", failure=FAILURE, ended_ms=3),
            trace("3.1", "defer"),
            trace("3.0", "defer", failure=FAILURE),
        ],
        "3.1",
    )
    claim = claim_of("3.1", ending=ending, attempt=1, call=tool_call("refund"))
    made = endings.make_ending(claim, FAILURE, dead_ms=9, worker="w2", tries=earlier)
    letter = made.letter
    assert made.status is JobStatus.DEAD_LETTERED
    assert (letter.step, letter.kind, letter.tool, letter.failure) == ("3.1", StepKind.TOOL, "refund", FAILURE)
    assert [(one.at_ms, one.worker) for one in letter.tries] == [(3, "w1"), (9, "w2")]
    assert letter.dead_ms == 9


def test_the_tries_of_a_lost_step_are_its_losses():
    """The worker that writes the letter did not try, so the letter does not name it."""
    claim = claim_of("3.1", ending="worker_lost", losses=12, call=tool_call("refund"))
    made = endings.make_ending(claim, endings.failure_of_ending(claim), dead_ms=9, worker="innocent")
    assert made.letter.tries == ()


def trace(step, outcome, *, failure=None, ended_ms=2):
    return TraceRecord(
        step=step,
        kind="tool",
        attempt=0,
        outcome=outcome,
        started_ms=1,
        ended_ms=ended_ms,
        worker="w1",
        failure=failure,
    )


def test_a_token_ceiling_ends_the_job_when_it_is_reached():
    """Input and output have separate ceilings."""
    agent = Agent("clerk", "scripted:m-1", "You help.", limits=RunLimits(max_input_tokens=100, max_output_tokens=50))
    assert endings.find_spent_budget(agent, claim_of(job_usage=Usage(input_tokens=99, output_tokens=49))) is None
    spent = endings.find_spent_budget(agent, claim_of(job_usage=Usage(input_tokens=100)))
    assert (spent.kind, spent.detail) == (FailureKind.BUDGET_EXCEEDED, "max_input_tokens: 100 tokens used of 100")
    assert "max_output_tokens" in endings.find_spent_budget(agent, claim_of(job_usage=Usage(output_tokens=50))).detail
