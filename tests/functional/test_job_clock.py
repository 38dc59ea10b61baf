"""A job's clock on a real fleet: an outage, a human's decision or a waiting child delays a job, but does not end it."""

from __future__ import annotations

import pytest

from midwatch.schemas.job import JobStatus
from midwatch.workers.simulator import Faults
from tests.functional.fleet_agents import SHORT_S, WIRES, expiring, expiring_hard, patron, unhurt, waiting_little
from tests.functional.fleet_marks import marks, open_gate
from tests.functional.fleet_stage import fleet_on_stage, told, use
from tests.patience import PATIENCE_S

HOUSE = WIRES["chat"]
"""The model of `unhurt` and `waiting_little`. No other test here uses it, so it may be paused."""


@pytest.fixture(scope="module")
def stage(server, lend_prefix, tmp_path_factory):
    """Two workers that run both model turns and tools."""
    both = (("model,tools", "threads", 6), ("model,tools", "threads", 6))
    with lend_prefix() as prefix, fleet_on_stage(server.url, prefix, tmp_path_factory.mktemp("clock"), both) as stage:
        yield stage


def server_ms(stage):
    """Return the server's time."""
    return stage.client.operations.client.time()[0] * 1_000


def out_of_order(stage, seconds):
    """Let no call to the house's model start for a while, as during its outage."""
    assert unhurt.run(stage.cast(["Here."]), timeout_s=PATIENCE_S).output == "Here.", (
        "the coordinator knows the model now"
    )
    stage.client.gate.pause(HOUSE, seconds)


def test_an_outage_longer_than_the_session_timeout_ends_no_job(stage):
    """The model is away for longer than `session_timeout_s`. All jobs complete, and the wait is shown as held."""
    out_of_order(stage, SHORT_S + 2)
    handles = [unhurt.enqueue(stage.cast([f"Number {n}."])) for n in range(3)]
    for n, handle in enumerate(handles):
        assert handle.result(PATIENCE_S).output == f"Number {n}."
        job = stage.job(handle)
        assert job.held_ms >= 1_000 * SHORT_S
        assert job.count_worked_ms(job.finished_ms) < 1_000 * SHORT_S


def test_a_failing_model_ends_no_job_that_may_wait(stage):
    """The model answers 529 for longer than `session_timeout_s`, while a single job asks it."""
    stage.model.use(Faults(outage="overloaded", outage_s=SHORT_S + 2))
    try:
        handle = unhurt.enqueue(stage.cast(["At last."]))
        assert handle.result(PATIENCE_S).output == "At last."
    finally:
        stage.model.use(Faults())
    job = stage.job(handle)
    assert job.held_ms >= 1_000 * SHORT_S
    assert job.count_worked_ms(job.finished_ms) < 1_000 * SHORT_S


def test_jobs_that_wait_too_long_are_letters_that_replay_and_complete(stage, wait_for):
    """With `max_wait_s` the outage makes dead letters that name the limit and the model. After it, all are replayed."""
    out_of_order(stage, PATIENCE_S)
    handles = [waiting_little.enqueue(stage.cast([f"Number {n}."])) for n in range(3)]
    waiting = wait_for(lambda: stage.job(handles[0]).waiting, "the first job to wait")
    assert (waiting.owner, waiting.downstream) == ("downstream", HOUSE)
    for handle in handles:
        result = handle.result(PATIENCE_S)
        assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, "waited_too_long")
        assert result.failure.limit == "max_wait_s"
        assert HOUSE in result.failure.detail
    stage.client.gate.resume(HOUSE)
    for n, handle in enumerate(handles):
        assert stage.client.dead_letters.replay(handle.id)
        assert handle.result(PATIENCE_S).output == f"Number {n}."


def test_a_parent_does_not_time_out_while_its_child_waits_for_a_human(stage, wait_for):
    """The human decides after the parent's session timeout. The child and then the parent go on."""
    task = stage.cast([use(("wipe", {"target": "late"})), "Wiped."])
    handle = patron.enqueue(stage.cast([use(("soon", {"input": task})), "Done."]))
    child_id = wait_for(lambda: parked_child(stage, handle), "the child's question")
    late_ms = stage.job(handle).started_ms + 1_000 * (SHORT_S + 1)
    wait_for(lambda: server_ms(stage) > late_ms, "the time to be over")
    assert stage.job(handle).waiting.owner == "child"
    assert stage.client.approvals.approve(child_id)
    assert handle.result(PATIENCE_S).output == "Done."
    job = stage.job(handle)
    assert job.count_worked_ms(job.finished_ms) < 1_000 * SHORT_S


def test_the_child_of_a_timed_out_job_goes_on_for_the_replay(stage, wait_for):
    """The parent's own tool took too long. The replay finds the child's answer, and no call is paid for twice."""
    task = stage.cast([use(("wipe", {"target": "later"})), "Late, but here."])
    text = stage.cast([use(("soon", {"input": task}), ("idle", {"gate": "parent"})), "Done, late."])
    handle = patron.enqueue(text)
    child_id = wait_for(lambda: parked_child(stage, handle), "the child's question")
    late_ms = stage.job(handle).started_ms + 1_000 * (SHORT_S + 1)
    wait_for(lambda: server_ms(stage) > late_ms, "the time to be over")
    open_gate("parent")
    result = handle.result(PATIENCE_S)
    assert (result.status, result.failure.limit) == (JobStatus.DEAD_LETTERED, "session_timeout_s")
    assert stage.client.approvals.approve(child_id)
    child = wait_for(lambda: (found := stage.client.jobs.show(child_id)).status.ended and found, "the child to end")
    assert (child.status, child.output) == (JobStatus.COMPLETED, "Late, but here.")
    assert stage.client.dead_letters.replay(handle.id)
    assert handle.result(PATIENCE_S).output == "Done, late."
    assert told(stage.heard(text)[1]) == ["Late, but here.", "rested"]
    assert (len(stage.heard(task)), len(stage.heard(text))) == (2, 2)


def parked_child(stage, handle):
    """Return the id of the job's parked child, or None."""
    parked = stage.client.approvals.list()
    return next((job.job_id for job in parked if job.root_id == handle.id and job.job_id != handle.id), None)


def test_a_question_without_an_answer_is_rejected_at_its_expiry(stage):
    """The model gets the reason and goes on without the call."""
    text = stage.cast([use(("ship", {"parcel": "A-1"})), "Not shipped."])
    handle = expiring.enqueue(text)
    assert handle.result(PATIENCE_S).status in (JobStatus.PARKED, JobStatus.COMPLETED)
    wait_until_ended(handle)
    assert handle.result(PATIENCE_S).output == "Not shipped."
    assert told(stage.heard(text)[1]) == ["Not run: no decision was made within 1 s."]
    assert marks(f"ship-{handle.id}") == []


def test_a_question_may_expire_as_a_dead_letter_and_asks_again(stage):
    """The letter names the limit. The replay parks the call again, and then a human may approve it."""
    handle = expiring_hard.enqueue(stage.cast([use(("ship", {"parcel": "A-2"})), "Shipped."]))
    wait_until_ended(handle)
    assert handle.result(PATIENCE_S).failure.limit == "expires_s"
    assert stage.client.dead_letters.replay(handle.id)
    wait_until_ended(handle)
    assert handle.result(PATIENCE_S).failure.limit == "expires_s"


def wait_until_ended(handle):
    """Follow the job to its end, also over a time in which it is parked."""
    for _ in handle.events(follow=True):
        pass
