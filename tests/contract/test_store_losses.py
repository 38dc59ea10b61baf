"""What a store keeps of claims that lost their worker. Every test runs on a real Redis and on the Redis in this process."""

from __future__ import annotations

import pytest

from midwatch.orchestration.protocol.claims import ClaimRefusal
from midwatch.orchestration.protocol.isolation import alone
from midwatch.orchestration.protocol.store_replies import LeaseState, TurnCommitted
from midwatch.orchestration.store.script_calls.begin_work import MAX_LOSSES, MAX_LOSSES_ALONE
from midwatch.schemas.job import JobStatus
from midwatch.schemas.loss import Loss, LossKind
from tests.contract.store_bench import Bench, ending_of, in_process_bench, redis_bench, results_of, trace_of, turn_of
from tests.properties.contents import HOUR_MS


@pytest.fixture(params=["in_process", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "in_process":
        return in_process_bench()
    return redis_bench(request.getfixturevalue("redis"), request.getfixturevalue("prefix"))


def test_a_claim_names_the_workers_that_were_lost(bench):
    """The records have the worker, the time, and how long it renewed its lease. The row counts them."""
    claim = bench.begin()
    renewed = bench.lose(claim, kept_ms=2_500)
    lost_soon = bench.lose(renewed, kept_ms=0)
    assert (lost_soon.losses, lost_soon.interrupted, lost_soon.ending) == (2, True, "")
    first, second = lost_soon.counted_losses
    assert (first.worker, first.kind, first.kept_ms) == (claim.nonce, LossKind.LEASE_ENDED, 2_500)
    assert (second.worker, second.kind, second.kept_ms) == (renewed.nonce, LossKind.LEASE_ENDED, 0)
    assert (first.at_ms, second.at_ms) == (renewed.now_ms, lost_soon.now_ms)


def test_losses_without_proof_end_the_job_after_their_limit(bench):
    """However the workers die, a step does not outlive any number of them."""
    claim = bench.begin()
    for losses in range(1, MAX_LOSSES + 1):
        claim = bench.lose(claim)
        assert (claim.losses, claim.ending) == (losses, "worker_lost" if losses == MAX_LOSSES else "")


def test_losses_of_a_step_that_ran_alone_end_the_job_earlier(bench):
    """A step that kills its separate process together with the worker is never proven guilty, but it ends."""
    claim = bench.lose(bench.begin())
    for together in range(1, MAX_LOSSES_ALONE + 1):
        separate = bench.store.claim(claim.ref, alone(claim.nonce))
        assert (separate.fence, separate.losses, separate.interrupted) == (claim.fence, together, True)
        assert bench.store.claim(claim.ref, alone(claim.nonce)).fence == claim.fence, "its first reply may be lost"
        claim = bench.lose(separate)
        assert claim.counted_losses[-1].kind is LossKind.DIED_TOGETHER
        assert claim.counted_losses[-1].worker == separate.nonce.removesuffix("+")
        assert claim.ending == ("worker_lost" if together == MAX_LOSSES_ALONE else "")


def test_a_separate_process_can_not_continue_a_claim_that_was_taken_over(bench):
    """The worker was suspended before the process began, and another worker has the step."""
    claim = bench.begin()
    bench.expire(claim.ref)
    other = bench.claim(claim.ref)
    assert bench.store.claim(claim.ref, alone(claim.nonce)) is ClaimRefusal.BUSY
    assert bench.store.renew(other) is LeaseState.HELD


def test_a_recorded_loss_puts_the_step_back_with_its_proof(bench):
    """The step is due after the wait, counts one loss more, and is marked as begun. A late record changes nothing."""
    _, (ref,) = bench.to_calls(1)
    claim = bench.claim(ref)
    proof = Loss(at_ms=claim.now_ms, worker="host.7", kind=LossKind.DIED_ALONE, detail='was "killed"\n by SIGSEGV')
    assert bench.store.record_loss(claim, proof, HOUR_MS)
    assert not bench.store.record_loss(claim, proof, 0)
    assert bench.take(ref) is ClaimRefusal.EARLY
    bench.expire(ref)
    again = bench.claim(ref)
    assert (again.losses, again.interrupted, again.attempt, again.counted_losses) == (1, True, 0, (proof,))
    assert bench.store.commit_results(again, results_of(again, ref))
    assert not bench.store.record_loss(again, proof, 0), "its step is done"


def test_an_inline_call_names_the_worker_of_its_turn(bench):
    """The row of an inline call has the nonce of the turn, although it was never claimed."""
    turn, (ref,) = bench.to_calls(1, inline=1)
    bench.expire(ref)
    assert [loss.worker for loss in bench.claim(ref).counted_losses] == [turn.nonce]


def test_the_records_of_losses_go_with_their_step(bench):
    """Neither a committed turn nor a committed result leaves a record. A replay begins without any."""
    claim = bench.lose(bench.begin())
    assert bench.store.commit_turn(claim, turn_of(claim, 1)) is TurnCommitted.COMMITTED
    ref = claim.ref.call(0)
    claim = bench.lose(bench.claim(ref))
    assert bench.store.finish(claim, ending_of(claim, JobStatus.DEAD_LETTERED), trace_of(claim, "dead_letter"))
    assert bench.operations.replay("job-1")
    claim = bench.claim(ref)
    assert (claim.losses, claim.loss_records, claim.interrupted) == (0, (), True)
    claim = bench.lose(claim)
    assert bench.store.commit_results(claim, results_of(claim, ref))
    rows = bench.client.hkeys(bench.keys.steps("s1", "job-1"))
    assert rows == [b"2"]
